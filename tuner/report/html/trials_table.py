"""The table of all trials, which a browser can sort and filter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tuner.core.quantities import format_duration, format_number, format_size
from tuner.measure.points import OperatingPoint
from tuner.recommend.recommend import Recommendation
from tuner.report.html.symbols import short_name
from tuner.report.html.trial_views import TrialView
from tuner.results.words import rate
from tuner.space.spec import OFF, ON, LadderValue


@dataclass(frozen=True)
class Cell:
    """A cell: what it shows, and what it is sorted by.

    Attributes:
        text: What it shows.
        key: A number, or a text in lower case; None: there is nothing, which comes last.
        number: Whether it is set as one.
    """

    text: str
    key: float | str | None
    number: bool = True


@dataclass(frozen=True)
class Row:
    """A trial.

    Attributes:
        number: Of the trial.
        fared: See `TrialView`.
        words: Its config.
        cells: In the order of the columns, the trial's own number left out.
    """

    number: int
    fared: str
    words: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class TrialsTable:
    """All of them.

    Attributes:
        columns: Titles, and whether numbers are below.
        rows: In order of the trials.
    """

    columns: tuple[tuple[str, bool], ...]
    rows: tuple[Row, ...]


def trials_table(candidates: Sequence[TrialView], found: Recommendation) -> TrialsTable:
    """The table of some trials; columns in which there would be nothing are left out."""
    names = list(dict.fromkeys(name for candidate in candidates for name in candidate.trial.parameters))
    percentile = found.slo.percentile
    points = [c.shown.point if c.shown else None for c in candidates]
    columns = [
        ("outcome", [Cell(c.outcome, c.outcome.lower(), number=False) for c in candidates]),
        ("inferences/s", [_number(p.throughput.value if p else None, rate) for p in points]),
        (f"{percentile}, ms", [_number(p.latency_ms[percentile].value if p else None) for p in points]),
        ("at load", [_load(p) for p in points]),
        ("mean batch", [_number(p.average_batch_size if p else None, "{:.1f}".format) for p in points]),
        *((short_name(name), [_value(c.trial.parameters.get(name)) for c in candidates]) for name in names),
        ("GPU memory", [_memory(c) for c in candidates]),
        ("launch", [_number(c.trial.launch_s, format_duration) for c in candidates]),
        ("took", [_number(c.trial.wall_s, format_duration) for c in candidates]),
    ]
    kept = [(title, cells) for title, cells in columns if any(cell.key is not None for cell in cells)]
    rows = (
        Row(c.number, c.fared, c.words, tuple(cells[index] for _, cells in kept)) for index, c in enumerate(candidates)
    )
    return TrialsTable(tuple((title, _is_number(cells)) for title, cells in kept), tuple(rows))


def _number(value: float | None, form: Callable[[float], str] = format_number) -> Cell:
    return Cell("", None) if value is None else Cell(form(value), float(value))


def _load(point: OperatingPoint | None) -> Cell:
    return Cell(str(point.load).removeprefix("concurrency "), point.load.level) if point else Cell("", None)


def _memory(candidate: TrialView) -> Cell:
    memory = candidate.trial.gpu_memory
    return _number(memory.peak_bytes, format_size) if memory else Cell("", None)


def _value(value: LadderValue | None) -> Cell:
    """A parameter's; one that does not count has none, and `off` comes first."""
    if value is None:
        return Cell("", None)
    if isinstance(value, tuple):
        return Cell(", ".join(map(str, value)), float(value[0]) if _all_numbers(value) else str(value[0]).lower())
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Cell(f"{value:g}", float(value))
    text = str(value)
    return Cell(text, {OFF: -2.0, ON: -1.0}.get(text, text.lower()), number=_is_numeric(text))


def _all_numbers(values: tuple[object, ...]) -> bool:
    return bool(values) and all(isinstance(value, int | float) for value in values)


def _is_numeric(text: str) -> bool:
    return text in {OFF, ON} or text.replace(".", "", 1).isdigit()


def _is_number(cells: Sequence[Cell]) -> bool:
    return all(cell.number for cell in cells)
