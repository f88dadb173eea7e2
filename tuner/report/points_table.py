"""The table of operating points that `tritontune measure` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from tuner.core.quantities import format_number, format_size
from tuner.core.slo import PERCENTILES, Percentile
from tuner.measure.points import OperatingPoint
from tuner.measure.quality_warnings import QualityCheck
from tuner.results.words import loads_in_words, rate, warnings_of_points

_FIRSTS: tuple[Percentile, ...] = ("p50", "p99")
# More than any table needs.
_UNBOUNDED = 10_000


class _Column(NamedTuple):
    """A column of the table. If there is no room for all columns, those of low rank are kept."""

    title: str
    cells: list[str]
    rank: int


def points_table(points: Sequence[OperatingPoint]) -> RenderableType:
    """A table with a row for each load level, times in ms, and notes such as quality warnings below it.

    If the terminal is too narrow for all columns, the most important ones are shown, and the others are named.
    """
    return _Fitting(points)


def notes_on(points: Sequence[OperatingPoint]) -> Iterator[str]:
    """Lines on quality warnings, on rates that the server did not sustain, and on GPU throttling."""
    yield from warnings_of_points([("", point) for point in points])
    for point in points:
        if point.kept_up is False:
            yield f"at {point.load}: the server did not sustain this rate"
        warned = any(warning.check is QualityCheck.GPU_THROTTLED for warning in point.warnings)
        if point.gpu and point.gpu.throttle_reasons and not warned:
            yield f"at {point.load}: the GPU was throttled, {', '.join(point.gpu.throttle_reasons)}"


class _Fitting:
    """A table with as many columns as fit, and the notes."""

    def __init__(self, points: Sequence[OperatingPoint]) -> None:
        self._points = points

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = list(_columns(self._points))
        shown: list[_Column] = []
        for column in sorted(columns, key=attrgetter("rank")):
            more = [other for other in columns if other in [*shown, column]]
            if column.rank == 0 or self._width(more, console, options) <= options.max_width:
                shown = more
        yield self._table(shown)
        if left_out := ", ".join(column.title for column in columns if column not in shown):
            yield Text(f"columns left out: {left_out} (use a wider terminal, --csv or --json)", "dim")
        if notes := "\n".join(notes_on(self._points)):
            yield Text(notes, style="yellow")

    def _width(self, columns: Sequence[_Column], console: Console, options: ConsoleOptions) -> int:
        return console.measure(self._table(columns), options=options.update_width(_UNBOUNDED)).maximum

    def _table(self, columns: Sequence[_Column]) -> Table:
        title, loads = loads_in_words(self._points)
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
        for name in (title, *(column.title for column in columns)):
            table.add_column(name, justify="right", no_wrap=True)
        for point, cells in zip(
            self._points, zip(loads, *(column.cells for column in columns), strict=True), strict=True
        ):
            # No markup, since the name of a recording and an error message may contain brackets.
            table.add_row(*map(Text, cells), style="yellow" if point.warnings or point.kept_up is False else None)
        return table


def _columns(points: Sequence[OperatingPoint]) -> Iterator[_Column]:
    yield from _found_columns(points)
    if any(point.responses for point in points):
        yield from _response_columns(points)
    if any(point.server for point in points):
        yield from _server_columns(points)
    yield from _client_columns(points)
    yield from _machine_columns(points)


def _found_columns(points: Sequence[OperatingPoint]) -> Iterator[_Column]:
    yield _Column("inferences/s", [rate(point.throughput.value) for point in points], 0)
    widths = [f"{point.throughput.relative_half_width:.1%}" if point.throughput.value else "" for point in points]
    yield _Column("±", widths, 1)
    limited = {test.percentile for point in points for test in point.limits}
    for percentile, rank in zip(PERCENTILES, (1, 4, 3, 0), strict=True):
        cells = [format_number(point.latency_ms[percentile].value) for point in points]
        yield _Column(f"{percentile} ms", cells, 0 if percentile in limited else rank)
    yield _Column("errors", [str(point.errors) for point in points], 0 if any(point.errors for point in points) else 3)


def _response_columns(points: Sequence[OperatingPoint]) -> Iterator[_Column]:
    """Columns of a decoupled model, which gives any number of responses to a request."""
    responses = [point.responses for point in points]
    for percentile in _FIRSTS:
        firsts = [response.time_to_first_ms.get(percentile) if response else None for response in responses]
        yield _Column(f"first {percentile} ms", [format_number(first.value) if first else "" for first in firsts], 1)
    gaps = [response.inter_response_ms.get("p50") if response else None for response in responses]
    yield _Column("gap p50 ms", ["" if gap is None else format_number(gap) for gap in gaps], 1)
    yield _Column("responses", [f"{response.per_request:.3g}" if response else "" for response in responses], 3)


def _server_columns(points: Sequence[OperatingPoint]) -> Iterator[_Column]:
    """Columns of times in the server, from its statistics."""
    servers = [point.server for point in points]
    yield _Column("queue ms", [format_number(server.queue_ms) if server else "" for server in servers], 2)
    yield _Column("input ms", [format_number(server.compute_input_ms) if server else "" for server in servers], 5)
    yield _Column("infer ms", [format_number(server.compute_infer_ms) if server else "" for server in servers], 2)
    yield _Column("output ms", [format_number(server.compute_output_ms) if server else "" for server in servers], 5)
    yield _Column("batch", [f"{server.average_batch_size:.1f}" if server else "" for server in servers], 2)


def _client_columns(points: Sequence[OperatingPoint]) -> Iterator[_Column]:
    yield _Column("client CPU", [f"{point.client.cpu:.0%}" for point in points], 4)
    lags = [point.client.send_lag_ms for point in points]
    if any(lags):
        yield _Column("send lag p99 ms", [format_number(lag["p99"]) if lag else "" for lag in lags], 4)


def _machine_columns(points: Sequence[OperatingPoint]) -> Iterator[_Column]:
    """Columns of CPU, memory, GPU and energy, as far as known."""
    taken = [point.server_resources for point in points]
    if any(taken):
        yield _Column("server CPU", [f"{usage.cpu_cores:.0%}" if usage else "" for usage in taken], 3)
        yield _Column("memory", [format_size(usage.memory_bytes) if usage else "" for usage in taken], 4)
    gpus = [point.gpu for point in points]
    shown = (
        _Column("GPU", [_cell(gpu.utilization_percent if gpu else None, "{:.0f}%") for gpu in gpus], 2),
        _Column("GPU memory", [format_size(u.memory_bytes) if u and u.memory_bytes else "" for u in gpus], 2),
        _Column("GPU W", [_cell(gpu.power_w if gpu else None, "{:.0f}") for gpu in gpus], 4),
        _Column("J/inference", [_cell(gpu.energy_per_inference_j if gpu else None, "{:.3g}") for gpu in gpus], 4),
    )
    yield from (column for column in shown if any(column.cells))


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
