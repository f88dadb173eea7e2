"""Plots numbers as a row of bars in plain text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_BARS = "▁▂▃▄▅▆▇█"


def plotted(values: Sequence[float | None], words: Callable[[float], str]) -> str:
    """A bar for each value, followed by the lowest and the highest: `▁▃█  740 to 3,180`.

    Args:
        values: The values; None leaves a gap.
        words: Formats a value.

    Returns:
        The line; empty without values.
    """
    present = [value for value in values if value is not None]
    if not present:
        return ""
    low, high = min(present), max(present)
    bars = "".join(" " if value is None else _bar(value, low, high) for value in values)
    return f"{bars}  {words(low)} to {words(high)}" if high > low else f"{bars}  {words(low)}"


def _bar(value: float, low: float, high: float) -> str:
    share = (value - low) / (high - low) if high > low else 0.5
    return _BARS[min(len(_BARS) - 1, int(share * len(_BARS)))]
