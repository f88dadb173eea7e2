"""JSON for other programs: unknown values are null, never `Infinity` or `NaN`, which only Python's parser accepts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def json_text(data: Any, *, indent: int | None = None) -> str:
    """Data as JSON that every parser accepts; infinite floats and NaN are null.

    Args:
        data: Mappings, lists, tuples, and values that JSON can represent.
        indent: Spaces for each level; None: all in one line.
    """
    return json.dumps(finite(data), indent=indent, allow_nan=False)


def finite(data: Any) -> Any:
    """The data with None in place of infinite floats and NaN."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {finite(name): finite(value) for name, value in data.items()}
    return [finite(value) for value in data] if isinstance(data, list | tuple) else data
