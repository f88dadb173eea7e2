"""Operating points as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.core.json_text import finite
from tuner.core.loads import Concurrency, Load, Ramp, RequestRate
from tuner.core.objectives import Objective
from tuner.core.record import Interval
from tuner.core.slo import PERCENTILES
from tuner.measure.client_view import ClientView
from tuner.measure.gpu_view import GpuUsage, GpuView
from tuner.measure.machine_load import MachineLoad
from tuner.measure.points import OperatingPoint, ServerBreakdown
from tuner.measure.quality_warnings import QualityWarning
from tuner.measure.responses import ResponseTimes
from tuner.measure.server_resources import ServerResources


def point_json(point: OperatingPoint, *, verified: bool = False) -> dict[str, Any]:
    """A POINT of `front.json`, without its trial.

    `server_resources` and `gpu` are null when unknown. `doubts` are the point's quality warnings, and `discarded` those
    of a discarded measurement of the same load.
    """
    average = point.average_batch_size
    return {
        "load": load_json(point.load),
        "throughput": interval_json(point.throughput),
        "latency_ms": {percentile: interval_json(point.latency_ms[percentile]) for percentile in PERCENTILES},
        "average_batch_size": average and round(average, 2),
        "requests": point.requests,
        "errors": point.errors,
        "verified": verified,
        "server_resources": point.server_resources and _resources_json(point.server_resources),
        "gpu": point.gpu and _gpu_json(point.gpu),
        "doubts": [_warning_json(warning) for warning in point.warnings],
        "discarded": [_warning_json(warning) for warning in point.discarded],
    }


def judged_point_json(point: OperatingPoint, objective: Objective, *, verified: bool = False) -> dict[str, Any]:
    """A POINT, without its trial, with what decides whether it is on the front.

    `objective_value` is null when unknown. `answered` is whether all requests were answered, and as fast as they were
    due. Other points are not on the front.
    """
    value = point.value(objective)
    judged: dict[str, Any] = finite(
        {
            **point_json(point, verified=verified),
            "objective_value": value and interval_json(value),
            "answered": point.is_answered,
        }
    )
    return judged


def measured_point_json(point: OperatingPoint) -> dict[str, Any]:
    """A POINT with all further measured values, as in `tritontune measure --json`.

    `latency_histogram` is a list of the buckets that are not empty, `[upper end in ms, requests]`, from low to high.
    Keys that do not apply are null: `kept_up` and `send_lag_ms` in a closed loop, `server` without the server's
    statistics, and `responses` of a model with one response to each request.
    """
    return {
        **point_json(point),
        "error": point.error,
        "window_s": short(point.window_s),
        "batch_size": point.batch_size,
        "received_bytes_per_s": short(point.received_bytes_per_s),
        "kept_up": point.kept_up,
        "client": _client_json(point.client),
        "machine": point.machine and _machine_json(point.machine),
        "machine_speed": point.machine_speed and _shortened(dict(point.machine_speed)),
        "server": point.server and _server_json(point.server),
        "responses": point.responses and _responses_json(point.responses),
        "latency_histogram": [[short(upper_ms), count] for upper_ms, count in point.histogram.buckets],
    }


def load_json(load: Load) -> dict[str, Any]:
    """The offered load; a ramp as its first and last rate."""
    if isinstance(load, Concurrency):
        return {"concurrency": load.requests}
    if isinstance(load, RequestRate):
        return {"request_rate": float(load.per_s)}
    if isinstance(load, Ramp):
        return {"request_rate": [float(load.from_per_s), float(load.to_per_s)]}
    return {"replay": load.name}


def interval_json(interval: Interval) -> dict[str, float]:
    """An INTERVAL of `front.json`."""
    return _shortened(interval.model_dump())


def short(value: float) -> float:
    """A value rounded to five significant digits, more than measurements have."""
    return float(f"{value:.5g}")


def _shortened(values: Mapping[Any, float]) -> dict[str, float]:
    return {name: short(value) for name, value in values.items()}


def _client_json(client: ClientView) -> dict[str, Any]:
    return {
        "cpu": short(client.cpu),
        "processes": client.processes,
        "send_lag_ms": client.send_lag_ms and _shortened(client.send_lag_ms),
        "bound": client.bound,
    }


def _warning_json(warning: QualityWarning) -> dict[str, str]:
    return {"gate": warning.check.value, "reason": warning.reason}


def _machine_json(machine: MachineLoad) -> dict[str, Any]:
    return {name: short(value) if isinstance(value, float) else value for name, value in machine}


def _server_json(server: ServerBreakdown) -> dict[str, Any]:
    return {
        "inferences": server.inferences,
        "executions": server.executions,
        "requests": server.requests,
        "cache_hits": server.cache_hits,
        "queue_ms": short(server.queue_ms),
        "compute_input_ms": short(server.compute_input_ms),
        "compute_infer_ms": short(server.compute_infer_ms),
        "compute_output_ms": short(server.compute_output_ms),
        "batches": [
            {"size": size, "executions": executions, "service_ms": short(service_ms)}
            for size, (executions, service_ms) in server.batches.items()
        ],
        "wall_s": _maybe_short(server.wall_s),
    }


def _resources_json(resources: ServerResources) -> dict[str, Any]:
    return {"cpu_cores": short(resources.cpu_cores), "memory_bytes": resources.memory_bytes}


def _gpu_json(usage: GpuUsage) -> dict[str, Any]:
    return {
        "energy_per_inference_j": _maybe_short(usage.energy_per_inference_j),
        "gpus": [_view_json(view) for view in usage.gpus],
    }


def _view_json(view: GpuView) -> dict[str, Any]:
    """The fields of the record, with measured values shortened."""
    return {name: short(value) if isinstance(value, float) else value for name, value in view}


def _maybe_short(value: float | None) -> float | None:
    return None if value is None else short(value)


def _responses_json(responses: ResponseTimes) -> dict[str, Any]:
    return {
        "time_to_first_ms": {name: interval_json(interval) for name, interval in responses.time_to_first_ms.items()},
        "inter_response_ms": _shortened(responses.inter_response_ms),
        "per_request": short(responses.per_request),
        "per_s": short(responses.per_s),
    }
