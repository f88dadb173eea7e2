"""Times as people write them: `25ms`, `90s`, `1h30m`."""

from __future__ import annotations

import math
import re

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(us|ms|s|m|h)")


def parse_duration(text: str) -> float:
    """Seconds in a text such as `90s`, `10m`, `1h30m`, `2.5ms`.

    Raises:
        ValueError: it is none, or not above 0: the message says what would be right.
    """
    compact = text.strip().lower()
    parts = list(_PART.finditer(compact))
    if not parts or "".join(p.group() for p in parts) != compact:
        raise ValueError(f"{text!r} is no duration; write a number with its unit, such as 90s, 10m, 1h30m or 25ms")
    seconds = math.fsum(float(p[1]) * _SECONDS[p[2]] for p in parts)
    if seconds <= 0:
        raise ValueError(f"{text!r} is not above 0")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest honest way to write a duration: `850us`, `2.5ms`, `12s`, `1m30s`, `2h05m`."""
    if seconds < 0.9995e-3:
        return f"{seconds * 1e6:.3g}us"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.3g}ms"
    if seconds < 9.95:
        return f"{seconds:.2g}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
