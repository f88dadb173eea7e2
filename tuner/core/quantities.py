"""Parses and formats durations, shares, sizes and numbers: `25ms`, `1h30m`, `3%`, `8GiB`, `4g`, `3,541`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
LONGEST_S = 365 * 24 * 3600.0
"""The longest duration, in s, since timers of the operating system have a limit."""
LARGEST_BYTES = 1 << 60
"""The largest size, in bytes."""
_NUMBER = r"(\d+(?:\.\d+)?|\.\d+)"
_PART = re.compile(rf"{_NUMBER}(us|ms|s|m|h)")
DURATION = rf"^ *({_NUMBER}(us|ms|s|m|h))+ *$"
"""A pattern for JSON schemas that matches the texts that `parse_duration` reads."""
_BYTES = {
    "B": 1,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KIB": 1 << 10,
    "MIB": 1 << 20,
    "GIB": 1 << 30,
    "TIB": 1 << 40,
    # Powers of 1024, as in Docker and the JVM.
    "K": 1 << 10,
    "M": 1 << 20,
    "G": 1 << 30,
    "T": 1 << 40,
}
_SHARE = re.compile(r"-?(\d+\.?\d*|\.\d+)(e-?\d+)? *%?")
_SIZE = re.compile(rf"{_NUMBER}\s*([A-Za-z]*)")


def parse_duration(text: str, *, units: Sequence[str] = ("s", "m")) -> float:
    """Seconds in a text such as `90s`, `10m`, `1h30m`, `2.5ms`.

    Args:
        text: One or more numbers, each with its unit.
        units: Units that the error message proposes if there is none.

    Raises:
        ValueError: the text is not a duration > 0 and <= 1 year; the message has the fix.
    """
    compact = text.strip().lower()
    if re.fullmatch(_NUMBER, compact):
        raise ValueError(f"{compact} has no unit; write {' or '.join(compact + unit for unit in units)}")
    parts = list(_PART.finditer(compact))
    if not parts or "".join(p.group() for p in parts) != compact:
        raise ValueError(f"{text!r} is not a duration; write a number with its unit, such as 90s, 10m, 1h30m or 25ms")
    seconds = math.fsum(float(p[1]) * _SECONDS[p[2]] for p in parts)
    if not 0 < seconds <= LONGEST_S:
        raise ValueError(f"must be > 0 and <= {LONGEST_S / 3600:,.0f}h, got {text!r}")
    return seconds


def write_duration(seconds: float) -> str:
    """The exact text of a duration in s, for `parse_duration`: `10m`, `90s`, `0.5s`, `25us`."""
    for unit, factor in (("h", 3600), ("m", 60)):
        if seconds % factor == 0:
            return f"{seconds // factor:.15g}{unit}"
    return f"{seconds:.15g}s" if seconds >= 1e-3 else f"{seconds * 1e6:.15g}us"


def parse_share(value: float | str) -> float:
    """A share from a text such as `3%` or `0.03`, or from a number.

    Raises:
        ValueError: it is not a share >= 0 and < 1; the message has the fix.
    """
    text = str(value).strip()
    if isinstance(value, bool) or not _SHARE.fullmatch(text):
        raise ValueError(f"{value!r} is not a share; write it as 3% or 0.03")
    share = float(text.removesuffix("%").rstrip()) / (100 if text.endswith("%") else 1)
    if not 0 <= share < 1:
        raise ValueError(f"must be >= 0 and < 1 (100%), got {text}")
    return share


def format_duration(seconds: float) -> str:
    """A duration in s for display, rounded: `850us`, `2.5ms`, `12s`, `1m30s`, `2h05m`."""
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


def format_number(value: float) -> str:
    """A number for display, rounded: `3,541`, `73.2`, `0.514`."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def format_ms(value_ms: float) -> str:
    """Milliseconds for display: `0.412 ms`, `12.3 ms`, `1,204 ms`."""
    return f"{format_number(value_ms)} ms"


def parse_size(text: str) -> int:
    """Bytes in a text such as `8GiB` and `8g` (1024^3), `800MB` (1000^2), or a plain number of bytes.

    Raises:
        ValueError: it is not a size, < 1 byte, or > 1 EiB; the message has the fix.
    """
    match = _SIZE.fullmatch(text.strip())
    factor = _BYTES.get(match[2].upper() or "B") if match else None
    if match is None or factor is None:
        raise ValueError(f"{text!r} is not a size; write a number with its unit, such as 8GiB, 800MB, or plain bytes")
    size = round(min(float(match[1]) * factor, 2.0 * LARGEST_BYTES))
    if not 1 <= size <= LARGEST_BYTES:
        raise ValueError(f"must be >= 1 byte and <= {LARGEST_BYTES >> 40:,}TiB, got {text!r}")
    return size


def format_size(size: float) -> str:
    """A size in bytes for display: `512 B`, `1.5 MiB`, `23.4 GiB`."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1023.5 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.3g} {units[0]}" if size < 999.5 else f"{size:.0f} {units[0]}"


def counted(names: Sequence[str], what: str, *, shown: int = 3) -> str:
    """The number of things and the names of some: `5 servers (a, b, c and 2 more)`.

    Args:
        names: Names of all.
        what: The noun, in singular.
        shown: How many names to show.
    """
    some, more = ", ".join(names[:shown]), len(names) - shown
    named = f"{some} and {more} more" if more > 0 else some
    return f"{len(names)} {what}{'s' * (len(names) != 1)} ({named})"
