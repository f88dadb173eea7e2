"""What `tritontune measure` shows: a table of operating points, with the columns that these points need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from tuner.measure.doubts import Gate
from tuner.measure.points import OperatingPoint
from tuner.quantities import format_number, format_size
from tuner.report.words import doubts_in_words, loads_in_words, rate
from tuner.slo import PERCENTILES, Percentile

_FIRSTS: tuple[Percentile, ...] = ("p50", "p99")
# More than any table needs.
_UNBOUNDED = 10_000

_Column = tuple[str, list[str]]


def points_table(points: Sequence[OperatingPoint]) -> RenderableType:
    """One row a load level, times in ms; below it, what must be known to read the numbers right.

    Where there is no room for all columns, they come as several tables of the same rows, subject by subject: columns
    that are cut off say nothing.
    """
    return _Tables(points)


def notes_on(points: Sequence[OperatingPoint]) -> Iterator[str]:
    """What speaks against a point, where the server did not keep up, and what held a GPU's clocks; a line each."""
    for point in points:
        yield from doubts_in_words(point)
        if point.kept_up is False:
            yield f"at {point.load}: the server did not keep up"
        doubted = any(doubt.gate is Gate.GPU_THROTTLED for doubt in point.doubts)
        if point.gpu and point.gpu.throttle_reasons and not doubted:
            yield f"at {point.load}: the GPU was throttled, {', '.join(point.gpu.throttle_reasons)}"


class _Tables:
    """As few tables as the width allows, and the notes."""

    def __init__(self, points: Sequence[OperatingPoint]) -> None:
        self._points = points

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns: list[_Column] = []
        for subject in _subjects(self._points):
            if columns and self._width([*columns, *subject], console, options) > options.max_width:
                yield self._table(columns)
                columns = []
            columns += subject
        yield self._table(columns)
        if notes := "\n".join(notes_on(self._points)):
            yield Text(notes, style="yellow")

    def _width(self, columns: Sequence[_Column], console: Console, options: ConsoleOptions) -> int:
        return console.measure(self._table(columns), options=options.update_width(_UNBOUNDED)).maximum

    def _table(self, columns: Sequence[_Column]) -> Table:
        columns = [loads_in_words(self._points), *columns]
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
        for title, _ in columns:
            table.add_column(title, justify="right")
        for point, cells in zip(self._points, zip(*(cells for _, cells in columns), strict=True), strict=True):
            # No markup: the name of a recording may hold brackets, and so may an error message.
            table.add_row(*map(Text, cells), style="yellow" if point.doubts or point.kept_up is False else None)
        return table


def _subjects(points: Sequence[OperatingPoint]) -> Iterator[list[_Column]]:
    yield list(_found_columns(points))
    if any(point.responses for point in points):
        yield list(_response_columns(points))
    if any(point.server for point in points):
        yield list(_server_columns(points))
    yield list(_client_columns(points))
    if machine := list(_machine_columns(points)):
        yield machine


def _found_columns(points: Sequence[OperatingPoint]) -> Iterator[_Column]:
    yield "inferences/s", [rate(point.throughput.value) for point in points]
    yield "±", [f"{point.throughput.relative_half_width:.1%}" if point.throughput.value else "" for point in points]
    for percentile in PERCENTILES:
        yield f"{percentile} ms", [format_number(point.latency_ms[percentile].value) for point in points]
    yield "errors", [str(point.errors) for point in points]


def _response_columns(points: Sequence[OperatingPoint]) -> Iterator[_Column]:
    """Of a model with any number of responses to a request."""
    told = [point.responses for point in points]
    for percentile in _FIRSTS:
        firsts = [each.time_to_first_ms.get(percentile) if each else None for each in told]
        yield f"first {percentile} ms", [format_number(first.value) if first else "" for first in firsts]
    gaps = [each.inter_response_ms.get("p50") if each else None for each in told]
    yield "gap p50 ms", ["" if gap is None else format_number(gap) for gap in gaps]
    yield "responses", [f"{each.per_request:.3g}" if each else "" for each in told]


def _server_columns(points: Sequence[OperatingPoint]) -> Iterator[_Column]:
    """Where the time goes, as the server says."""
    told = [point.server for point in points]
    yield "queue ms", [format_number(each.queue_ms) if each else "" for each in told]
    yield "input ms", [format_number(each.compute_input_ms) if each else "" for each in told]
    yield "infer ms", [format_number(each.compute_infer_ms) if each else "" for each in told]
    yield "output ms", [format_number(each.compute_output_ms) if each else "" for each in told]
    yield "batch", [f"{each.average_batch_size:.1f}" if each else "" for each in told]


def _client_columns(points: Sequence[OperatingPoint]) -> Iterator[_Column]:
    yield "client CPU", [f"{point.client.cpu:.0%}" for point in points]
    lags = [point.client.send_lag_ms for point in points]
    if any(lags):
        yield "send lag p99 ms", [format_number(lag["p99"]) if lag else "" for lag in lags]


def _machine_columns(points: Sequence[OperatingPoint]) -> Iterator[_Column]:
    """What the server and its GPUs took, as far as somebody says."""
    taken = [point.server_resources for point in points]
    if any(taken):
        yield "server CPU", [f"{each.cpu_cores:.0%}" if each else "" for each in taken]
        yield "memory", [format_size(each.memory_bytes) if each else "" for each in taken]
    gpus = [point.gpu for point in points]
    shown: dict[str, list[str]] = {
        "GPU": [_told(each.utilization_percent if each else None, "{:.0f}%") for each in gpus],
        "GPU memory": [format_size(each.memory_bytes) if each and each.memory_bytes else "" for each in gpus],
        "GPU W": [_told(each.power_w if each else None, "{:.0f}") for each in gpus],
        "J/inference": [_told(each.energy_per_inference_j if each else None, "{:.3g}") for each in gpus],
    }
    yield from ((title, cells) for title, cells in shown.items() if any(cells))


def _told(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
