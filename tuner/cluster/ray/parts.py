"""Objects as arguments of Ray's methods, in parts that Ray sends from process to process."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

# The longest part, in bytes. Ray would store arguments above 100 KiB (`max_direct_call_object_size`) in shared memory,
# and perhaps on disk.
_PART = 64 * 1024


def in_parts(contents: object) -> list[bytes]:
    """Pickle an object for the arguments of a method."""
    pickled = pickle.dumps(contents)
    return [pickled[start : start + _PART] for start in range(0, len(pickled), _PART)]


def whole(parts: Sequence[bytes]) -> Any:
    """The object of `in_parts`."""
    return pickle.loads(b"".join(parts))  # noqa: S301 (from the driver of this run)
