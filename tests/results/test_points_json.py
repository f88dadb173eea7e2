from __future__ import annotations

import json

import pytest
from support.builders import point

from tuner.core.loads import Concurrency, Load, Ramp, Replay, RequestRate
from tuner.measure.points import OperatingPoint
from tuner.results.points_json import load_json, measured_point_json, point_json


@pytest.mark.parametrize(
    ("load", "told"),
    [
        (Concurrency(64), {"concurrency": 64}),
        (RequestRate(500), {"request_rate": 500.0}),
        (Ramp(100, 1_000, 60), {"request_rate": [100.0, 1_000.0]}),
        (Replay("day.txt", (0, 1)), {"replay": "day.txt"}),
    ],
)
def test_a_load(load: Load, told: dict[str, object]) -> None:
    assert load_json(load) == told
    assert json.dumps(load_json(load)) == json.dumps(told)


def test_the_contract_of_a_point_stays_as_it_is(open_point: OperatingPoint) -> None:
    assert list(point_json(open_point, verified=True)) == [
        "load",
        "throughput",
        "latency_ms",
        "average_batch_size",
        "requests",
        "errors",
        "verified",
        "server_resources",
        "gpu",
        "doubts",
        "discarded",
    ]


def test_measure_tells_all_else_as_well(open_point: OperatingPoint) -> None:
    told = json.loads(json.dumps(measured_point_json(open_point)))
    assert {**told, **point_json(open_point)} == told
    assert (told["batch_size"], told["kept_up"], told["error"]) == (4, False, "UNAVAILABLE: gone")
    assert told["client"] == {
        "cpu": 0.91,
        "processes": 2,
        "send_lag_ms": {"p50": 0.01, "p99": 2.5},
        "bound": "the load generator took 91%",
    }
    assert told["server"] == {
        "inferences": 500,
        "executions": 250,
        "requests": 500,
        "cache_hits": 0,
        "queue_ms": 0.1,
        "compute_input_ms": 0.01,
        "compute_infer_ms": 1.0,
        "compute_output_ms": 0.02,
        "batches": [{"size": 2, "executions": 250, "service_ms": 1.0}],
        "wall_s": None,
    }
    assert told["responses"]["time_to_first_ms"]["p99"]["value"] == 6
    assert told["responses"]["inter_response_ms"]["p50"] == 1.5
    assert (told["responses"]["per_request"], told["responses"]["per_s"]) == (8, 3_600)


def test_warnings_are_told_by_check(open_point: OperatingPoint) -> None:
    assert point_json(open_point)["doubts"] == [
        {"gate": "failures", "reason": "3 of 503 requests failed, most often with UNAVAILABLE: gone"},
        {"gate": "client_bound", "reason": "client-bound: the load generator took 91%"},
    ]
    assert point_json(open_point.model_copy(update={"discarded": open_point.warnings[:1]}))["discarded"] == [
        {"gate": "failures", "reason": "3 of 503 requests failed, most often with UNAVAILABLE: gone"}
    ]
    assert (point_json(point())["doubts"], point_json(point())["discarded"]) == ([], [])


def test_the_machine_is_told(gpu_point: OperatingPoint) -> None:
    told = json.loads(json.dumps(measured_point_json(gpu_point)))["machine"]
    assert told == {"cores": 16, "idle_cores": 12.25, "elsewhere_cores": 0.75, "stolen_cores": 0.0}
    assert measured_point_json(point())["machine"] is None


def test_the_histogram_is_a_list_of_buckets(open_point: OperatingPoint) -> None:
    (low_ms, low), (high_ms, high) = measured_point_json(open_point)["latency_histogram"]
    assert (low, high) == (2, 1)
    assert 60 <= low_ms < 63
    assert 120 <= high_ms < 126


def test_what_does_not_apply_is_null() -> None:
    told = measured_point_json(point(4).model_copy(update={"server": None}))
    assert [told[name] for name in ("error", "kept_up", "server", "responses")] == [None] * 4
    assert told["client"]["send_lag_ms"] is None


def test_what_a_point_cost_the_machine(gpu_point: OperatingPoint) -> None:
    told = json.loads(json.dumps(point_json(gpu_point)))
    assert told["server_resources"] == {"cpu_cores": 1.5, "memory_bytes": 300 * 2**20}
    assert told["gpu"]["energy_per_inference_j"] == 1.3745
    first, second = told["gpu"]["gpus"]
    assert first == {
        "gpu": "GPU 0 (NVIDIA H100)",
        "uuid": "GPU-aaaa",
        "utilization_percent": 81.235,
        "memory_bytes": 5 * 2**30,
        "run_memory_bytes": 6 * 2**30,
        "idle_memory_bytes": 2**30,
        "total_memory_bytes": 80 * 2**30,
        "power_w": 312.35,
        "energy_j": 312.35,
        "temperature_c": 61,
        "sm_clock_mhz": 1755,
        "memory_clock_mhz": 2619,
        "throttle_reasons": ["sw_power_cap"],
    }
    # Not known is null, never 0.
    assert (second["utilization_percent"], second["energy_j"], second["throttle_reasons"]) == (None, None, [])
    nobody = point_json(point())
    assert (nobody["server_resources"], nobody["gpu"]) == (None, None)
