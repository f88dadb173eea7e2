"""Operating points as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping

from tuner.core.loads import Concurrency, RequestRate
from tuner.core.record import Interval
from tuner.core.slo import PERCENTILES
from tuner.measure.client_view import ClientView
from tuner.measure.gpu_view import GpuUsage
from tuner.measure.points import OperatingPoint, ServerBreakdown
from tuner.measure.responses import ResponseTimes
from tuner.results.points_json import short

_Cell = str | float | None
_ENDS = ("", "_low", "_high")

MACHINE_COLUMNS = (
    "server_cpu_cores",
    "server_memory_bytes",
    "gpu_utilization_percent",
    "gpu_memory_bytes",
    "gpu_power_w",
    "energy_per_inference_j",
    "gpu_temperature_c",
    "gpu_sm_clock_mhz",
    "gpu_memory_clock_mhz",
    "gpu_throttle_reasons",
    "elsewhere_cpu_cores",
)
"""Columns of resource usage. Values of several GPUs are combined as in `GpuUsage`."""


def points_csv(points: Iterable[OperatingPoint]) -> str:
    """CSV with a row for each operating point. The columns are always the same; cells that do not apply are empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(_columns()), restval="", lineterminator="\n")
    writer.writeheader()
    for point in points:
        writer.writerow({name: None if _is_unbounded(cell) else cell for name, cell in _row(point).items()})
    return text.getvalue()


def _is_unbounded(cell: _Cell) -> bool:
    """Whether a value is infinite or NaN. Such a cell is empty, as it is null in JSON."""
    return isinstance(cell, float) and not math.isfinite(cell)


def _columns() -> Iterator[str]:
    yield from ("load", "concurrency", "requests_per_s_offered", "batch_size")
    yield from (f"inferences_per_s{end}" for end in _ENDS)
    yield from (f"{percentile}_ms{end}" for percentile in PERCENTILES for end in _ENDS)
    yield from ("requests", "errors", "error", "window_s", "kept_up", "received_bytes_per_s")
    yield from ("client_cpu_share", "client_processes", "send_lag_p50_ms", "send_lag_p99_ms", "client_bound")
    yield from ("server_inferences", "server_executions", "average_batch_size")
    yield from ("queue_ms", "compute_input_ms", "compute_infer_ms", "compute_output_ms")
    yield from (f"first_response_{percentile}_ms{end}" for percentile in PERCENTILES for end in _ENDS)
    yield from (f"inter_response_{percentile}_ms" for percentile in PERCENTILES)
    yield from ("responses_per_request", "responses_per_s")
    yield from ("server_requests", "cache_hits")
    yield from MACHINE_COLUMNS
    yield "doubts"


def _row(point: OperatingPoint) -> Mapping[str, _Cell]:
    return {
        **_offered(point),
        **_found(point),
        **_client(point.client),
        **(_server(point.server) if point.server else {}),
        **(_responses(point.responses) if point.responses else {}),
        **machine_cells(point),
        "doubts": warnings_cell(point),
    }


def machine_cells(point: OperatingPoint) -> dict[str, _Cell]:
    """The cells of `MACHINE_COLUMNS`; None where unknown."""
    cells: dict[str, _Cell] = _gpu(point.gpu) if point.gpu else {}
    if resources := point.server_resources:
        cells |= {"server_cpu_cores": short(resources.cpu_cores), "server_memory_bytes": resources.memory_bytes}
    if point.machine and point.machine.elsewhere_cores is not None:
        cells["elsewhere_cpu_cores"] = short(point.machine.elsewhere_cores)
    return cells


def warnings_cell(point: OperatingPoint) -> str:
    """The quality warnings of a point, each with its reason."""
    return "; ".join(f"{warning.check.value}: {warning.reason}" for warning in point.warnings)


def _offered(point: OperatingPoint) -> dict[str, _Cell]:
    offered: dict[str, _Cell] = {"load": str(point.load), "batch_size": point.batch_size}
    if isinstance(point.load, Concurrency):
        offered["concurrency"] = point.load.requests
    elif isinstance(point.load, RequestRate):
        offered["requests_per_s_offered"] = point.load.per_s
    return offered


def _found(point: OperatingPoint) -> dict[str, _Cell]:
    cells: dict[str, _Cell] = {
        "requests": point.requests,
        "errors": point.errors,
        "error": point.error or "",
        "window_s": short(point.window_s),
        "kept_up": "" if point.kept_up is None else str(point.kept_up).lower(),
        "received_bytes_per_s": short(point.received_bytes_per_s),
        **_interval("inferences_per_s", point.throughput),
    }
    for percentile, interval in point.latency_ms.items():
        cells |= _interval(f"{percentile}_ms", interval)
    return cells


def _client(client: ClientView) -> dict[str, _Cell]:
    return {
        "client_cpu_share": short(client.cpu),
        "client_processes": client.processes,
        "client_bound": client.bound or "",
        **{f"send_lag_{percentile}_ms": short(value) for percentile, value in (client.send_lag_ms or {}).items()},
    }


def _server(server: ServerBreakdown) -> dict[str, _Cell]:
    return {
        "server_inferences": server.inferences,
        "server_executions": server.executions,
        "average_batch_size": short(server.average_batch_size),
        "queue_ms": short(server.queue_ms),
        "compute_input_ms": short(server.compute_input_ms),
        "compute_infer_ms": short(server.compute_infer_ms),
        "compute_output_ms": short(server.compute_output_ms),
        "server_requests": server.requests,
        "cache_hits": server.cache_hits,
    }


def _responses(responses: ResponseTimes) -> dict[str, _Cell]:
    cells: dict[str, _Cell] = {
        "responses_per_request": short(responses.per_request),
        "responses_per_s": short(responses.per_s),
    }
    for percentile, interval in responses.time_to_first_ms.items():
        cells |= _interval(f"first_response_{percentile}_ms", interval)
    for percentile, gap_ms in responses.inter_response_ms.items():
        cells[f"inter_response_{percentile}_ms"] = short(gap_ms)
    return cells


def _gpu(usage: GpuUsage) -> dict[str, _Cell]:
    measured = {
        "gpu_utilization_percent": usage.utilization_percent,
        "gpu_power_w": usage.power_w,
        "energy_per_inference_j": usage.energy_per_inference_j,
        "gpu_temperature_c": usage.temperature_c,
        "gpu_sm_clock_mhz": usage.sm_clock_mhz,
        "gpu_memory_clock_mhz": usage.memory_clock_mhz,
    }
    return {
        **{name: None if value is None else short(value) for name, value in measured.items()},
        "gpu_memory_bytes": usage.memory_bytes,
        "gpu_throttle_reasons": " ".join(usage.throttle_reasons),
    }


def _interval(name: str, interval: Interval) -> dict[str, _Cell]:
    values = (interval.value, interval.low, interval.high)
    return {f"{name}{end}": short(value) for end, value in zip(_ENDS, values, strict=True)}
