"""Recorded arrival times to replay."""

from __future__ import annotations

import math
from itertools import accumulate, pairwise
from pathlib import Path

from tuner.core.errors import InputError
from tuner.core.loads import Replay


def read_intervals(path: Path) -> Replay:
    """Read microseconds between requests, one per line; the replay repeats at its end.

    Raises:
        InputError: the file is wrong; the message is one line with the place.
    """
    intervals_ns = [round(value * 1e3) for value in _numbers(path, "an interval in microseconds")]
    if any(interval_ns < 0 for interval_ns in intervals_ns):
        place = next(place for place, interval_ns in enumerate(intervals_ns, start=1) if interval_ns < 0)
        raise InputError(f"{path}:{place}: an interval must be >= 0")
    period_ns = sum(intervals_ns)
    if not period_ns:
        raise InputError(f"{path}: all intervals are 0; the rate would be infinite")
    offsets_ns = (0, *accumulate(intervals_ns[:-1]))
    return Replay(path.name, offsets_ns, period_ns)


def read_timestamps(path: Path) -> Replay:
    """Read send times of requests in seconds, one per line, in order; the first is the start of the replay.

    Raises:
        InputError: the file is wrong; the message is one line with the place.
    """
    times_s = _numbers(path, "a time in seconds")
    for place, (earlier, later) in enumerate(pairwise(times_s), start=2):
        if later < earlier:
            raise InputError(f"{path}:{place}: {later:g} comes after {earlier:g}; times must not decrease")
    return Replay(path.name, tuple(round((time_s - times_s[0]) * 1e9) for time_s in times_s))


def _numbers(path: Path, what: str) -> list[float]:
    """The numbers of all lines, without empty lines and comments (`#`)."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"{path}: cannot be read: {reason}") from None
    numbers = []
    for place, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise InputError(f"{path}:{place}: {text[:40]!r} is not {what}")
        numbers.append(number)
    if not numbers:
        raise InputError(f"{path}: has no requests; write one line with {what} for each")
    return numbers
