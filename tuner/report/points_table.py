"""What `tritontune measure` shows: a table of operating points, with the columns that these points need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.table import Table

from tuner.measure.points import OperatingPoint
from tuner.report.words import loads_in_words, rate
from tuner.slo import PERCENTILES, Percentile

_FIRSTS: tuple[Percentile, ...] = ("p50", "p99")

_Column = tuple[str, list[str]]


def points_table(points: Sequence[OperatingPoint]) -> Table:
    """One row a load level, times in ms; below it, what must be known to read the numbers right."""
    notes = "\n".join(notes_on(points))
    table = Table(box=box.SIMPLE_HEAD, caption=notes or None, caption_justify="left", caption_style="yellow")
    columns = list(_columns(points))
    for title, _ in columns:
        table.add_column(title, justify="right")
    for point, cells in zip(points, zip(*(cells for _, cells in columns), strict=True), strict=True):
        table.add_row(*cells, style="yellow" if point.client_bound or point.kept_up is False else None)
    return table


def notes_on(points: Sequence[OperatingPoint]) -> Iterator[str]:
    """Where the client was the limit, where the server did not keep up, and what failed; a line each."""
    for point in points:
        if point.client.bound:
            yield f"at {point.load}: client-bound, {point.client.bound}"
        if point.kept_up is False:
            yield f"at {point.load}: the server did not keep up"
        if point.error:
            yield f"at {point.load}: {point.errors} failed, most with {point.error}"


def _columns(points: Sequence[OperatingPoint]) -> Iterator[_Column]:
    yield loads_in_words(points)
    yield "inferences/s", [rate(point.throughput.value) for point in points]
    yield "±", [f"{point.throughput.relative_half_width:.1%}" if point.throughput.value else "" for point in points]
    for percentile in PERCENTILES:
        yield f"{percentile} ms", [_ms(point.latency_ms[percentile].value) for point in points]
    if any(point.responses for point in points):
        yield from _response_columns(points)
    if any(point.server for point in points):
        yield from _server_columns(points)
    yield "errors", [str(point.errors) for point in points]
    yield "client CPU", [f"{point.client.cpu:.0%}" for point in points]
    if any(point.client.send_lag_ms for point in points):
        lags = [point.client.send_lag_ms for point in points]
        yield "send lag p99 ms", [_ms(lag["p99"]) if lag else "" for lag in lags]


def _response_columns(points: Sequence[OperatingPoint]) -> Iterator[_Column]:
    """Of a model with any number of responses to a request."""
    told = [point.responses for point in points]
    for percentile in _FIRSTS:
        firsts = [each.time_to_first_ms.get(percentile) if each else None for each in told]
        yield f"first {percentile} ms", [_ms(first.value) if first else "" for first in firsts]
    gaps = [each.inter_response_ms.get("p50") if each else None for each in told]
    yield "gap p50 ms", ["" if gap is None else _ms(gap) for gap in gaps]
    yield "responses", [f"{each.per_request:.3g}" if each else "" for each in told]


def _server_columns(points: Sequence[OperatingPoint]) -> Iterator[_Column]:
    """Where the time goes, as the server says."""
    told = [point.server for point in points]
    yield "queue ms", [_ms(each.queue_ms) if each else "" for each in told]
    yield "input ms", [_ms(each.compute_input_ms) if each else "" for each in told]
    yield "infer ms", [_ms(each.compute_infer_ms) if each else "" for each in told]
    yield "output ms", [_ms(each.compute_output_ms) if each else "" for each in told]
    yield "batch", [f"{each.average_batch_size:.1f}" if each else "" for each in told]


def _ms(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
