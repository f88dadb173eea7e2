"""The table of all trials, sortable and filterable in the browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tuner.core.objectives import Objective
from tuner.core.quantities import format_duration, format_number, format_size
from tuner.measure.points import OperatingPoint
from tuner.recommend.recommend import Recommendation
from tuner.report.html.symbols import short_name
from tuner.report.html.trial_views import TrialView
from tuner.results.words import each_in_words, rate
from tuner.space.candidate import shown
from tuner.space.spec import OFF, ON, LadderValue


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        text: Its text.
        key: Its sort key, a number or a lower-case text; None: an empty cell, which is sorted last.
        number: Whether it is aligned as a number.
    """

    text: str
    key: float | str | None
    number: bool = True


@dataclass(frozen=True)
class Row:
    """The row of a trial.

    Attributes:
        number: The number of the trial.
        fared: See `TrialView`.
        words: Its changed parameters.
        cells: Its cells in the order of the columns, without the number.
    """

    number: int
    fared: str
    words: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class TrialsTable:
    """The table.

    Attributes:
        columns: The title of each column, and whether it holds numbers.
        rows: The rows in order of the trials.
    """

    columns: tuple[tuple[str, bool], ...]
    rows: tuple[Row, ...]


def trials_table(candidates: Sequence[TrialView], recommendation: Recommendation) -> TrialsTable:
    """Make the table of trials, without empty columns."""
    names = list(dict.fromkeys(name for candidate in candidates for name in candidate.trial.parameters))
    percentile = recommendation.percentile
    points = [c.shown.point if c.shown else None for c in candidates]
    columns = [
        ("outcome", [Cell(c.outcome, c.outcome.lower(), number=False) for c in candidates]),
        ("inferences/s", [_number(p.throughput.value if p else None, rate) for p in points]),
        *_each(points, recommendation.objective),
        (f"{percentile}, ms", [_number(p.latency_ms[percentile].value if p else None) for p in points]),
        ("at load", [_load(p) for p in points]),
        ("mean batch", [_number(p.average_batch_size if p else None, "{:.1f}".format) for p in points]),
        *((short_name(name), [_value(c.trial.parameters.get(name)) for c in candidates]) for name in names),
        ("GPU memory", [_memory(c) for c in candidates]),
        ("launch", [_number(c.trial.launch_s, format_duration) for c in candidates]),
        ("took", [_number(c.trial.wall_s, format_duration) for c in candidates]),
        ("host", [Cell(c.trial.host, c.trial.host.lower() or None, number=False) for c in candidates]),
    ]
    kept = [(title, cells) for title, cells in columns if any(cell.key is not None for cell in cells)]
    rows = (
        Row(c.number, c.fared, c.words, tuple(cells[index] for _, cells in kept)) for index, c in enumerate(candidates)
    )
    return TrialsTable(tuple((title, _is_number(cells)) for title, cells in kept), tuple(rows))


def _each(points: Sequence[OperatingPoint | None], objective: Objective) -> Iterator[tuple[str, list[Cell]]]:
    """The column of an objective that relates inferences to GPUs or energy."""
    if each := each_in_words(objective):
        values = [point.value(objective) if point else None for point in points]
        yield each, [_number(value.value if value else None) for value in values]


def _number(value: float | None, form: Callable[[float], str] = format_number) -> Cell:
    return Cell("", None) if value is None else Cell(form(value), float(value))


def _load(point: OperatingPoint | None) -> Cell:
    return Cell(str(point.load).removeprefix("concurrency "), point.load.level) if point else Cell("", None)


def _memory(candidate: TrialView) -> Cell:
    memory = candidate.trial.gpu_memory
    return _number(memory.peak_bytes, format_size) if memory else Cell("", None)


def _value(value: LadderValue | None) -> Cell:
    """The cell of a parameter: empty if it has no effect; `off` is sorted first."""
    if value is None:
        return Cell("", None)
    if isinstance(value, tuple):
        return Cell(", ".join(map(str, value)), float(value[0]) if _all_numbers(value) else str(value[0]).lower())
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Cell(f"{value:g}", float(value))
    text = shown(value)
    return Cell(text, {OFF: -2.0, ON: -1.0}.get(text, text.lower()), number=_is_numeric(text))


def _all_numbers(values: tuple[object, ...]) -> bool:
    return bool(values) and all(isinstance(value, int | float) for value in values)


def _is_numeric(text: str) -> bool:
    return text in {OFF, ON} or text.replace(".", "", 1).isdigit()


def _is_number(cells: Sequence[Cell]) -> bool:
    return all(cell.number for cell in cells)
