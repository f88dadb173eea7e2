from __future__ import annotations

import csv

from support.builders import point

from tuner.core.loads import Ramp
from tuner.measure.points import OperatingPoint
from tuner.results.points_csv import MACHINE_COLUMNS, points_csv


def rows_of(*points: OperatingPoint) -> list[dict[str, str]]:
    return list(csv.DictReader(points_csv(points).splitlines()))


def test_one_row_a_point_with_all_that_was_measured(open_point: OperatingPoint) -> None:
    closed, rate = rows_of(point(16, 1_234.5, 12.34), open_point)
    assert (closed["load"], closed["concurrency"], closed["requests_per_s_offered"]) == ("concurrency 16", "16", "")
    assert (rate["load"], rate["concurrency"], rate["requests_per_s_offered"]) == ("500 requests/s", "", "500")
    assert (closed["inferences_per_s"], closed["p99_ms"], closed["p50_ms"]) == ("1234.5", "12.34", "6.17")
    assert float(closed["inferences_per_s_low"]) < 1234.5 < float(closed["inferences_per_s_high"])
    assert float(closed["p99_ms_low"]) < 12.34 < float(closed["p99_ms_high"])
    assert (closed["average_batch_size"], closed["queue_ms"], closed["compute_infer_ms"]) == ("2.0", "0.1", "1.0")
    assert (rate["kept_up"], rate["send_lag_p99_ms"], rate["client_bound"]) == (
        "false",
        "2.5",
        "the load generator took 91%",
    )
    assert (rate["first_response_p99_ms"], rate["inter_response_p50_ms"]) == ("6.0", "1.5")
    assert (rate["errors"], rate["error"], rate["batch_size"]) == ("3", "UNAVAILABLE: gone", "4")
    assert (closed["server_requests"], closed["cache_hits"], closed["doubts"]) == ("500", "0", "")
    assert rate["doubts"] == (
        "failures: 3 of 503 requests failed, most often with UNAVAILABLE: gone; "
        "client_bound: client-bound: the load generator took 91%"
    )


def test_what_does_not_apply_is_empty() -> None:
    (row,) = rows_of(point(Ramp(1, 2, 3)).model_copy(update={"server": None}))
    empty = ("concurrency", "requests_per_s_offered", "error", "kept_up", "send_lag_p50_ms", "client_bound")
    assert {row[name] for name in (*empty, "queue_ms", "average_batch_size", "responses_per_s")} == {""}


def test_the_columns_are_always_the_same(open_point: OperatingPoint) -> None:
    headers = {points_csv(points).splitlines()[0] for points in ([], [point()], [open_point], [point(), open_point])}
    assert len(headers) == 1


def test_what_a_point_cost_the_machine(gpu_point: OperatingPoint) -> None:
    row, without = rows_of(gpu_point, point())
    assert {name: row[name] for name in MACHINE_COLUMNS} == {
        "server_cpu_cores": "1.5",
        "server_memory_bytes": str(300 * 2**20),
        "gpu_utilization_percent": "81.235",
        "gpu_memory_bytes": str(7 * 2**30),
        "gpu_power_w": "412.35",
        "energy_per_inference_j": "1.3745",
        "gpu_temperature_c": "61.0",
        "gpu_sm_clock_mhz": "1755.0",
        "gpu_memory_clock_mhz": "2619.0",
        "gpu_throttle_reasons": "sw_power_cap",
        "elsewhere_cpu_cores": "0.75",
    }
    assert {without[name] for name in MACHINE_COLUMNS} == {""}
