"""Building blocks of the plots: Plotly's traces and layouts, with colour names for the light and dark theme."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Trace = dict[str, Any]
"""A Plotly trace whose colours are names of the page's theme, such as `@accent`."""

BASELINE, BEST, FRONT, OTHERS, LIMIT = "@baseline", "@best", "@accent", "@faint", "@bad"
# Colours of series, and markers that distinguish them without colour.
_SERIES = ("@series-1", "@series-2", "@series-3", "@series-4", "@series-5", "@series-6")
_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "pentagon")
# An axis is logarithmic if the largest value exceeds the smallest by this factor.
_LOG_FACTOR = 12.0
_HOVER_WIDTH = 44


@dataclass(frozen=True)
class Plot:
    """A plot, or the reason why there is none.

    Attributes:
        key: Its identifier on the page.
        title: Its title.
        alt: A text alternative with the main result.
        note: How to read it; may be empty.
        traces: The traces; see `Trace`.
        layout: Plotly's layout.
        missing: Why there is no plot; empty: there is one.
        tall: Whether it is taller than the others.
    """

    key: str
    title: str
    alt: str = ""
    note: str = ""
    traces: Sequence[Trace] = ()
    layout: Mapping[str, Any] = field(default_factory=dict)
    missing: str = ""
    tall: bool = False

    @property
    def figure(self) -> dict[str, Any]:
        """The figure for the page's script."""
        return {"traces": list(self.traces), "layout": dict(self.layout)}


def axis(title: str, values: Iterable[float] = (), *, log: bool | None = None) -> dict[str, Any]:
    """An axis. It is logarithmic as `log` says; by default, if the values span more than a factor of 12."""
    positive = [value for value in values if value > 0]
    if not positive or not (max(positive) / min(positive) > _LOG_FACTOR if log is None else log):
        return {"title": {"text": title}, "rangemode": "tozero"}
    ticks = _ticks(min(positive), max(positive))
    return {
        "title": {"text": f"{title} (log)"},
        "type": "log",
        "tickvals": ticks,
        "ticktext": [f"{t:,g}" for t in ticks],
    }


def doubling_axis(title: str, levels: Iterable[float]) -> dict[str, Any]:
    """A logarithmic axis with ticks at powers of 2."""
    positive = sorted({level for level in levels if level > 0})
    low, high = (positive[0], positive[-1]) if positive else (1.0, 1.0)
    ticks = [2**power for power in range(math.floor(math.log2(low)), math.ceil(math.log2(high)) + 1)]
    step = max(1, math.ceil(len(ticks) / 9))
    return {
        "title": {"text": title},
        "type": "log",
        "tickvals": ticks[::step],
        "ticktext": [f"{tick:g}" for tick in ticks[::step]],
    }


def series(index: int) -> dict[str, Any]:
    """Line and marker of the n-th curve."""
    colour = _SERIES[index % len(_SERIES)]
    return {
        "mode": "lines+markers",
        "line": {"color": colour, "width": 1.75},
        "marker": {"color": colour, "size": 7, "symbol": _SYMBOLS[index % len(_SYMBOLS)]},
    }


def hover(title: str, *lines: str) -> str:
    """A hover text. Plotly reads it as HTML, so all parts are escaped."""
    parts = (part for line in lines if line for part in textwrap.wrap(line, _HOVER_WIDTH))
    return "<br>".join([f"<b>{escape(title)}</b>", *map(escape, parts)])


def escape(text: str) -> str:
    """Escape a text for Plotly."""
    return html.escape(text, quote=False)


def range_in_words(low: float, high: float, number: Any) -> str:
    """An interval: `3,480 to 3,605`."""
    return f"{number(low)} to {number(high)}" if math.isfinite(high) else f"{number(low)} and more"


def _ticks(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis: at 1, 2 and 5 of each decade if there is room, else at powers of ten."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(powers) <= 4 else (1,)
    return [float(f"{step}e{power}") for power in powers for step in steps]
