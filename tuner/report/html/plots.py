"""What the page's plots are made of: Plotly's traces and layouts, in colours that the page has for light and dark."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Trace = dict[str, Any]
"""A trace as Plotly takes it, but that colours are names of the page's, such as `@accent`."""

BASELINE, BEST, FRONT, OTHERS, LIMIT = "@baseline", "@best", "@accent", "@faint", "@bad"
# Of lines that are to be told apart, with markers that tell them apart without colour, too.
_SERIES = ("@series-1", "@series-2", "@series-3", "@series-4", "@series-5", "@series-6")
_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "pentagon")
# An axis on which so much lies is logarithmic.
_LONG = 12.0
_HOVER_WIDTH = 44


@dataclass(frozen=True)
class Plot:
    """A plot, or why there is none.

    Attributes:
        key: Names it on its page.
        title: What it shows.
        alt: The same for who cannot see it, and what it comes to.
        note: What is to be known to read it; may be empty.
        traces: See `Trace`.
        layout: Plotly's.
        missing: Why there is none; empty where there is one.
        tall: Whether it deserves more room than the others.
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
        """What the page's script draws."""
        return {"traces": list(self.traces), "layout": dict(self.layout)}


def axis(title: str, values: Iterable[float] = (), *, log: bool | None = None) -> dict[str, Any]:
    """An axis, logarithmic where `log` says so, or else where the values span more than a decade."""
    told = [value for value in values if value > 0]
    if not told or not (max(told) / min(told) > _LONG if log is None else log):
        return {"title": {"text": title}, "rangemode": "tozero"}
    ticks = _ticks(min(told), max(told))
    return {
        "title": {"text": f"{title} (log)"},
        "type": "log",
        "tickvals": ticks,
        "ticktext": [f"{t:,g}" for t in ticks],
    }


def doubling_axis(title: str, levels: Iterable[float]) -> dict[str, Any]:
    """A logarithmic axis for loads that double."""
    told = sorted({level for level in levels if level > 0})
    low, high = (told[0], told[-1]) if told else (1.0, 1.0)
    ticks = [2**power for power in range(math.floor(math.log2(low)), math.ceil(math.log2(high)) + 1)]
    step = max(1, math.ceil(len(ticks) / 9))
    return {
        "title": {"text": title},
        "type": "log",
        "tickvals": ticks[::step],
        "ticktext": [f"{tick:g}" for tick in ticks[::step]],
    }


def series(index: int) -> dict[str, Any]:
    """Line and marker of the n-th of several curves."""
    colour = _SERIES[index % len(_SERIES)]
    return {
        "mode": "lines+markers",
        "line": {"color": colour, "width": 1.75},
        "marker": {"color": colour, "size": 7, "symbol": _SYMBOLS[index % len(_SYMBOLS)]},
    }


def hover(title: str, *lines: str) -> str:
    """What a pointer on a point is told. Plotly reads it as HTML, so nothing of what is told may be any."""
    told = (part for line in lines if line for part in textwrap.wrap(line, _HOVER_WIDTH))
    return "<br>".join([f"<b>{escape(title)}</b>", *map(escape, told)])


def escape(text: str) -> str:
    """A text that Plotly shows as it is."""
    return html.escape(text, quote=False)


def range_in_words(low: float, high: float, number: Any) -> str:
    """An interval: `3,480 to 3,605`."""
    return f"{number(low)} to {number(high)}" if math.isfinite(high) else f"{number(low)} and more"


def _ticks(low: float, high: float) -> list[float]:
    """Of a logarithmic axis, with numbers at 1, 2 and 5 where there is room for them, else at powers of ten."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(powers) <= 4 else (1,)
    return [float(f"{step}e{power}") for power in powers for step in steps]
