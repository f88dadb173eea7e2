"""Plots as plain data, which `plot.html.j2` draws as SVG.

Positions are in per cent of the plot's area, so that it fits any width while its text keeps its size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Literal

Shape = Literal["circle", "square", "diamond", "triangle", "star", "cross"]

# An axis is logarithmic if the largest value exceeds the smallest by this factor, as in the report.
_LOG_FACTOR = 12.0
# Paths are in units of a view box of this size.
_BOX = 1000
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Tick:
    """A tick of an axis: its place in per cent, and its text."""

    at: float
    text: str


@dataclass(frozen=True)
class Mark:
    """A point that is drawn by itself.

    Attributes:
        x: Place from the left, in per cent.
        y: Place from the top, in per cent.
        shape: Its form.
        style: Class of its colour: `front`, `best`, `baseline`, `series-1`, ...
        title: What a pointer over it shows.
    """

    x: float
    y: float
    shape: Shape
    style: str
    title: str = ""


@dataclass(frozen=True)
class Path:
    """A line, an area, or many dots: the data of an SVG path in a view box of 1000 x 1000, and its class."""

    data: str
    style: str


@dataclass(frozen=True)
class Key:
    """An entry of the legend."""

    text: str
    style: str
    shape: Shape | None = None


@dataclass(frozen=True)
class Limit:
    """A limit: a vertical (`x`) or horizontal (`y`) line at a place in per cent."""

    way: Literal["x", "y"]
    at: float
    text: str


@dataclass(frozen=True)
class Drawing:
    """A plot, or the reason why there is none.

    Attributes:
        title: Its title.
        alt: A text alternative with the main result.
        note: How to read it; may be empty.
        x_title: Title of the horizontal axis; may be empty.
        y_title: Title of the vertical axis.
        x_ticks: Ticks of the horizontal axis.
        y_ticks: Ticks of the vertical axis.
        paths: Lines, areas and dots; the later ones lie above.
        marks: Points; they lie above all paths.
        limits: Limits.
        legend: What is what.
        missing: Why there is no plot; empty: there is one.
    """

    title: str
    alt: str = ""
    note: str = ""
    x_title: str = ""
    y_title: str = ""
    x_ticks: Sequence[Tick] = ()
    y_ticks: Sequence[Tick] = ()
    paths: Sequence[Path] = ()
    marks: Sequence[Mark] = ()
    limits: Sequence[Limit] = ()
    legend: Sequence[Key] = ()
    missing: str = ""


@dataclass(frozen=True)
class Scale:
    """Places of values on an axis.

    Attributes:
        low: The value at 0 per cent.
        high: The value at 100 per cent.
        log: Whether the axis is logarithmic.
    """

    low: float
    high: float
    log: bool = False

    @classmethod
    def of(cls, values: Iterable[float], *, log: bool | None = None) -> Scale:
        """A scale with room for all values; by default logarithmic if they span more than a factor of 12."""
        positive = [value for value in values if value > 0 and math.isfinite(value)]
        low, high = (min(positive), max(positive)) if positive else (0.5, 1.0)
        if log is None:
            log = high / low > _LOG_FACTOR
        if log:
            return cls(low / 1.15, high * 1.15, log=True)
        return cls(0.0, high * 1.08)

    def at(self, value: float) -> float:
        """The place of a value in per cent; one outside of the axis lies at its end."""
        if self.log:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(100 * min(1.0, max(0.0, share)), 2)

    def ticks(self, most: int = 6) -> tuple[Tick, ...]:
        """Round values, at most as many as asked for, or one more."""
        values = _log_ticks(self.low, self.high, most) if self.log else _linear_ticks(self.low, self.high, most)
        return tuple(Tick(self.at(value), f"{value:,.12g}") for value in values)


@dataclass(frozen=True)
class TimeScale:
    """Places of times on an axis."""

    low: datetime
    high: datetime

    @classmethod
    def of(cls, times: Iterable[datetime]) -> TimeScale:
        """A scale with room for all times."""
        known = list(times)
        low, high = min(known), max(known)
        room = max((high - low) * 0.03, timedelta(hours=6))
        return cls(low - room, high + room)

    def at(self, time: datetime) -> float:
        """The place of a time in per cent."""
        return round(100 * ((time - self.low) / (self.high - self.low)), 2)

    def ticks(self, most: int = 5) -> tuple[Tick, ...]:
        """Beginnings of days, UTC."""
        first = self.low.replace(hour=0, minute=0, second=0, microsecond=0) + _DAY
        days = [first + _DAY * day for day in range((self.high - first) // _DAY + 1)] if first <= self.high else []
        step = max(1, math.ceil(len(days) / most))
        return tuple(Tick(self.at(day), f"{day:%b} {day.day}") for day in days[::step])


Place = tuple[float, float]
"""A place in per cent from the left and from the top."""


def line(places: Iterable[Place]) -> str:
    """A line through places."""
    return "".join(f"{'M' if not at else 'L'}{_box(x)} {_box(y)}" for at, (x, y) in enumerate(places))


def steps(places: Sequence[Place]) -> str:
    """Stairs through places from left to right: first across, then up."""
    corners = [corner for (_, y), (x, up) in pairwise(places) for corner in ((x, y), (x, up))]
    return line([*places[:1], *corners])


def dots(places: Iterable[Place]) -> str:
    """Dots, as lines without length: their class gives them round ends."""
    return "".join(f"M{_box(x)} {_box(y)}h0" for x, y in places)


def band(uppers: Sequence[Place], lowers: Sequence[Place]) -> str:
    """The area between two lines."""
    return f"{line([*uppers, *reversed(lowers)])}Z" if uppers else ""


def whisker(x: float, low: float, high: float) -> str:
    """A vertical line at `x` from one place to another."""
    return line([(x, low), (x, high)])


def sparkline(values: Sequence[float]) -> str:
    """The path of a small plot without axes; empty for fewer than two values."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    # A change of a few per cent is noise: the height is a tenth of the value at least.
    room = max(high - low, 0.1 * abs(high), 1e-9)
    middle = (low + high) / 2
    return line((100 * at / (len(values) - 1), 50 - 80 * (value - middle) / room) for at, value in enumerate(values))


def _box(per_cent: float) -> str:
    return f"{per_cent / 100 * _BOX:.0f}"


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    span = high - low
    if span <= 0:
        return [low]
    power = 10 ** math.floor(math.log10(span / most))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= most)
    first = math.ceil(low / step)
    return [step * count for count in range(first, math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        values = [value for power in decades for factor in factors if low <= (value := factor * 10.0**power) <= high]
        if len(values) <= most + 1:
            break
    return values[:: max(1, math.ceil(len(values) / (most + 1)))]
