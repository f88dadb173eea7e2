from __future__ import annotations

import io

from rich.console import Console
from support.builders import judged, point

from tuner.core.loads import Replay, RequestRate
from tuner.measure.gpu_view import GpuUsage, GpuView
from tuner.measure.points import OperatingPoint
from tuner.measure.quality_warnings import QualityCheck, QualityWarning
from tuner.report.points_table import points_table
from tuner.stats.slo_verdict import SLOTest


def shown(*points: OperatingPoint, width: int = 300) -> str:
    text = io.StringIO()
    Console(file=text, width=width).print(points_table(points))
    return text.getvalue()


def notes(*points: OperatingPoint) -> list[str]:
    """What stands below the table."""
    return [line.strip() for line in shown(*points).splitlines() if line.startswith("at ")]


def rows(text: str) -> list[list[str]]:
    """The cells of its rows."""
    return [line.split() for line in text.splitlines() if line.strip()[:1].isdigit()]


def test_a_closed_loop_with_the_servers_own_breakdown() -> None:
    text = shown(point(1, 100, 10), point(8, 300, 20))
    header = " ".join(text.splitlines()[1].split())
    assert header == (
        "concurrency inferences/s ± p50 ms p90 ms p95 ms p99 ms errors "
        "queue ms input ms infer ms output ms batch client CPU"
    )
    assert " ".join(rows(text)[1]) == "8 300 2.0% 10 16 18 20 0 0.1 0.01 1 0.02 2.0 20%"
    assert "lag" not in text


def test_a_server_that_says_nothing_leaves_its_columns_out_or_empty() -> None:
    silent = point(8, 300, 20).model_copy(update={"server": None})
    assert "queue" not in shown(silent)
    text = shown(point(1, 100, 10), silent)
    assert len(rows(text)[0]) == len(rows(text)[1]) + 5


def test_an_open_loop_shows_its_lag_and_a_stream_its_responses(open_point: OperatingPoint) -> None:
    text = shown(open_point)
    assert "requests/s" in text
    assert "send lag p99 ms" in text
    row = rows(text)[0]
    assert row[:8] == ["500", "450", "2.0%", "60", "96", "108", "120", "3"]
    assert row[8:12] == ["3", "6", "1.5", "8"]
    assert row[-2:] == ["91%", "2.5"]


def test_below_it_stands_what_to_know(open_point: OperatingPoint) -> None:
    text = shown(point(RequestRate(100), 100, 5, kept_up=True), open_point)
    assert "at 500 requests/s: client-bound: the load generator took 91%" in text
    assert "at 500 requests/s: the server did not sustain this rate" in text
    assert "at 500 requests/s: 3 of 503 requests failed, most often with UNAVAILABLE: gone" in text
    assert "at 100 requests/s" not in text


def test_a_point_that_was_measured_twice_says_so_and_what_was_thrown_away() -> None:
    failing, drift = point(2, errors=1), QualityWarning(check=QualityCheck.DRIFT, reason="drifts: it did")
    twice = failing.model_copy(update={"discarded": (*failing.warnings, drift)})
    assert notes(twice) == [
        "at concurrency 2: 1 of 501 requests failed, most often with UNAVAILABLE: gone; also when re-measured",
        "at concurrency 2: re-measured; the first time: drifts: it did",
    ]
    assert notes(point(2)) == []


def test_notes_hold_whatever_a_server_says() -> None:
    failing = judged(point(2, errors=1), error="INTERNAL: [red]no[/] such thing [/]")
    assert "INTERNAL: [red]no[/] such thing [/]" in shown(failing)


def test_a_recording_may_have_any_name() -> None:
    assert "replay of day[b].txt" in shown(point(Replay("day[b].txt", (0, 1))))


def test_a_slice_without_an_answer_is_shown() -> None:
    stalled = point(RequestRate(5), 0.0, kept_up=False)
    assert "inf" not in " ".join(rows(shown(stalled))[0])


def header(text: str) -> str:
    return " ".join(text.splitlines()[1].split())


def test_what_matters_least_makes_way_and_is_named(open_point: OperatingPoint) -> None:
    wide, narrow = shown(open_point), shown(open_point, width=80)
    assert (len(rows(wide)), len(rows(narrow))) == (1, 1)
    assert "no room" not in wide
    assert header(narrow) == "requests/s inferences/s ± p50 ms p99 ms errors first p50 ms batch"
    told = " ".join(narrow.split())
    assert "columns left out: p90 ms, p95 ms, first p99 ms, gap p50 ms, responses, queue ms" in told
    assert "(use a wider terminal, --csv or --json)" in told
    assert "…" not in narrow
    assert max(map(len, narrow.splitlines())) <= 80


def test_a_hundred_columns_have_room_for_what_matters() -> None:
    text = shown(point(1, 12_345, 1_234), point(1024, 98_765, 12_345), width=100)
    assert header(text) == "concurrency inferences/s ± p50 ms p95 ms p99 ms errors queue ms infer ms batch"
    assert max(map(len, text.splitlines())) <= 100


def test_on_the_narrowest_terminal_there_is_still_one_line_a_row() -> None:
    text = shown(point(8, 300, 20), width=40)
    assert header(text) == "concurrency inferences/s p99 ms"
    assert rows(text) == [["8", "300", "20"]]


def test_what_a_point_cost_the_machine_has_columns_where_anybody_knows(gpu_point: OperatingPoint) -> None:
    text = shown(point(1, 100, 10), gpu_point)
    assert text.splitlines()[1].split("client CPU")[1].split() == (
        ["server", "CPU", "memory", "GPU", "GPU", "memory", "GPU", "W", "J/inference"]
    )
    assert " ".join(rows(text)[1]).endswith(" 20% 150% 300 MiB 81% 7 GiB 412 1.37")
    assert rows(text)[0][-1] == "20%"
    assert "at concurrency 8: the GPU was throttled, sw_power_cap" in text
    hot = GpuView(gpu="GPU 0 (NVIDIA H100)", uuid="GPU-aaaa", throttle_reasons=("hw_thermal_slowdown", "sw_power_cap"))
    assert notes(judged(gpu_point, gpu=GpuUsage(gpus=(hot,)))) == [
        "at concurrency 8: GPU 0 (NVIDIA H100) was throttled: hw_thermal_slowdown"
    ]
    only_server = gpu_point.model_copy(update={"gpu": None})
    assert "GPU" not in shown(only_server)
    assert " ".join(rows(shown(only_server))[0]).endswith(" 20% 150% 300 MiB")


def test_the_percentile_that_is_limited_is_never_left_out() -> None:
    limit = SLOTest(percentile="p95", limit_ms=25.0, requests=500, over=0, design_effect=1.0)
    narrow, limited = (shown(judged(point(1, 100, 10), limits=limits), width=50) for limits in ((), (limit,)))
    assert "p95 ms" not in narrow.split("columns left out")[0]
    assert "p95 ms" in limited.split("columns left out")[0]
