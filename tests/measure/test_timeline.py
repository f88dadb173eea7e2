from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.closed_loop import Batcher, samples_of
from support.open_loop import run_open

from tuner.core.loads import Ramp, RequestRate
from tuner.load.protocols import Responses, Samples
from tuner.measure.points import OperatingPoint
from tuner.measure.timeline import timeline

UP = Ramp(100, 1_100, 20)


def ramped(batcher: Batcher, ramp: Ramp) -> Samples:
    """All of a ramp, until its last request has ended."""
    return run_open(batcher, ramp, 1_000.0, np.random.default_rng(0))


def rates(points: tuple[OperatingPoint, ...]) -> list[float]:
    return [point.load.level for point in points]


def test_a_slice_is_a_point_at_its_mean_rate() -> None:
    points = timeline(ramped(Batcher(0.5, largest=1), UP), UP)
    assert rates(points) == [150, 250, 350, 450, 550, 650, 750, 850, 950, 1_050]
    assert all(isinstance(point.load, RequestRate) for point in points)
    for point in points:
        assert point.throughput.value == pytest.approx(point.load.level, rel=0.1)
        assert point.requests == pytest.approx(2 * point.load.level, rel=0.1)
        assert point.kept_up is True
    assert sum(point.requests for point in points) == len(ramped(Batcher(0.5, largest=1), UP))


def test_it_shows_from_where_on_the_server_does_not_keep_up() -> None:
    points = timeline(ramped(Batcher(1.6, spread=0.1, largest=1), UP), UP)
    assert [point.kept_up for point in points] == [True] * 5 + [points[5].kept_up] + [False] * 4
    for point in points[6:]:
        assert point.throughput.value == pytest.approx(1e3 / 1.6, rel=0.03)
    p50s = [point.latency_ms["p50"].value for point in points]
    assert max(p50s[:5]) < 20
    # Those due last wait for all that was due before: the longer, the later.
    assert p50s[6:] == sorted(p50s[6:])
    assert p50s[-1] > 1_000


def test_a_stall_is_in_the_slice_in_which_requests_were_due() -> None:
    ramp = Ramp(200, 200, 10)
    points = timeline(ramped(Batcher(0.5, largest=1, stop_ms=(4_100, 4_900)), ramp), ramp)
    slow = [point.latency_ms["p99"].value > 300 for point in points]
    assert slow == [False] * 4 + [True] + [False] * 5


def test_a_slice_without_an_answer_in_it_has_no_throughput() -> None:
    ramp = Ramp(100, 100, 4, "constant")
    points = timeline(ramped(Batcher(0.5, largest=1, stop_ms=(900, 2_100)), ramp), ramp, slices=4)
    assert points[1].throughput.value == 0
    assert 0 < points[1].throughput.high < 5
    assert points[1].requests == 100
    assert [point.kept_up for point in points][1] is False


def test_slices_in_which_nothing_succeeded_are_left_out() -> None:
    samples = ramped(Batcher(0.5, largest=1), Ramp(100, 100, 4, "constant"))
    ok = samples.sent_ns < 2_000_000_000
    failed = replace(samples, ok=ok, errors={"INTERNAL: no": int((~ok).sum())})
    points = timeline(failed, Ramp(100, 100, 4, "constant"), slices=4)
    assert [point.requests for point in points] == [100, 100]
    assert [point.errors for point in points] == [0, 0]


def test_failures_count_where_they_were_due() -> None:
    samples = ramped(Batcher(0.5, largest=1), Ramp(100, 100, 4, "constant"))
    ok = np.arange(400) % 10 < 9
    ok[:200] = True
    points = timeline(replace(samples, ok=ok, errors={"INTERNAL: no": 20}), Ramp(100, 100, 4), slices=4)
    assert [point.errors for point in points] == [0, 0, 10, 10]
    assert [point.error for point in points] == [None, None, "INTERNAL: no", "INTERNAL: no"]


def test_inferences_and_responses_are_counted_by_slice() -> None:
    ramp = Ramp(100, 100, 2, "constant")
    samples = ramped(Batcher(0.5, largest=1), ramp)
    counts = np.where(np.arange(200) < 100, 2, 5).astype(np.int32)
    seen = replace(samples, responses=Responses(samples.done_ns, counts, np.zeros(1, dtype=np.uint32)))
    points = timeline(seen, ramp, slices=2, batch_size=4)
    assert [point.throughput.value for point in points] == pytest.approx([400, 400], rel=0.02)
    assert [point.responses and point.responses.per_request for point in points] == [2, 5]


def test_nothing_has_no_slices() -> None:
    assert timeline(samples_of([], [], 1.0), UP) == ()
