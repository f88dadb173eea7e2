"""JSON for others: what is not known is null, and never `Infinity` or `NaN`, which only Python's parser takes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def json_text(data: Any, *, indent: int | None = None) -> str:
    """Data as JSON that every parser takes; floats that are infinite or no number are null.

    Args:
        data: Mappings, lists, tuples and what JSON has a form for.
        indent: Spaces a level; None: all in one line.
    """
    return json.dumps(finite(data), indent=indent, allow_nan=False)


def finite(data: Any) -> Any:
    """The same with None in the place of what is infinite or no number."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {finite(name): finite(value) for name, value in data.items()}
    return [finite(value) for value in data] if isinstance(data, list | tuple) else data
