from __future__ import annotations

import math
from statistics import stdev

import pytest
from support.builders import interval, point, served_point, trial

from tuner.core.loads import Concurrency, RequestRate
from tuner.core.record import Interval
from tuner.core.slo import SLO
from tuner.measure.client_view import ClientView
from tuner.measure.gpu_view import GpuUsage, GpuView
from tuner.measure.points import OperatingPoint
from tuner.measure.quality_warnings import QualityCheck
from tuner.measure.responses import ResponseTimes
from tuner.measure.server_resources import ServerResources
from tuner.recommend.front import usable_points
from tuner.recommend.recommend import recommend
from tuner.recommend.verification import Verification
from tuner.stats.slo_verdict import SLOTest

THREE = Verification(trial=1, load=Concurrency(8), rounds=tuple(point(8, rate, 20) for rate in (300, 330, 360)))


def test_rounds_are_told_together_by_their_mean_and_spread() -> None:
    together = THREE.point
    assert together is not None
    assert together.throughput.value == pytest.approx(330)
    # t(0.975, 2) x the deviation of logarithms / sqrt(3)
    half = 4.303 * stdev(map(math.log, (300, 330, 360))) / 3**0.5
    assert together.throughput.high == pytest.approx(330 * math.exp(half), rel=1e-3)
    assert together.throughput.low == pytest.approx(330 * math.exp(-half), rel=1e-3)
    assert together.requests == 1500
    assert together.server is not None
    assert together.server.executions == 750
    assert dict(together.server.batches) == {2: (750, 1.0)}


def test_rounds_tell_together_what_they_cost_the_machine() -> None:
    rounds = tuple(
        point().model_copy(
            update={
                "server_resources": ServerResources(cpu_cores=cores, memory_bytes=100),
                "gpu": GpuUsage(gpus=(GpuView(gpu="GPU 0", uuid="GPU-a", power_w=watts),)),
            }
        )
        for cores, watts in ((1, 200), (2, 300))
    )
    together = Verification(trial=1, load=Concurrency(1), rounds=rounds).point
    assert together is not None
    assert together.server_resources == ServerResources(cpu_cores=1.5, memory_bytes=100)
    assert together.gpu is not None
    assert together.gpu.power_w == 250


def test_rounds_that_agree_are_no_surer_than_each_of_them() -> None:
    together = Verification(trial=1, load=Concurrency(8), rounds=(point(8, 300, 20), point(8, 300, 20))).point
    assert together is not None
    assert math.log(together.throughput.high / 300) == pytest.approx(0.02 / 2**0.5)


def test_two_rounds_that_lie_far_apart_leave_much_open_and_yet_no_latency_of_0() -> None:
    together = Verification(trial=1, load=Concurrency(8), rounds=(point(8, 300, 10), point(8, 200, 18))).point
    assert together is not None
    p90_ms = together.latency_ms["p90"]
    assert 0 < p90_ms.low < p90_ms.value / 2
    assert 2 * p90_ms.value < p90_ms.high < 3 * p90_ms.value


def test_a_round_that_knows_next_to_nothing_is_told_of() -> None:
    vague = point(8, 300, 20)
    vague = vague.model_copy(
        update={"latency_ms": {name: Interval(value=20, low=0, high=1e9) for name in vague.latency_ms}}
    )
    together = Verification(trial=1, load=Concurrency(8), rounds=(vague, vague)).point
    assert together is not None
    assert together.latency_ms["p99"].high > 1e5


def test_the_rounds_that_chose_are_not_told() -> None:
    told = THREE.model_copy(update={"choosing": 2}).point
    assert told is not None
    assert told.throughput.value == pytest.approx(360)
    chosen_only = THREE.model_copy(update={"choosing": 3})
    assert not chosen_only.confirms
    assert chosen_only.point == THREE.point


def test_limits_are_tested_with_all_rounds() -> None:
    test = SLOTest(percentile="p99", limit_ms=25, requests=2_000, over=5, design_effect=1)
    rounds = tuple(each.model_copy(update={"limits": (test,)}) for each in THREE.rounds)
    told = THREE.model_copy(update={"rounds": rounds, "choosing": 1}).point
    assert told is not None
    assert [(each.requests, each.over) for each in told.limits] == [(6_000, 15)]
    assert told.requests == 1_000


def test_a_load_that_was_only_verified_is_a_point_of_the_trial() -> None:
    trials = [trial(1, point(4, 200, 15), point(16, 500, 40))]
    points = usable_points(trials, [THREE])
    assert [(each.point.load, each.verified) for each in points] == [
        (Concurrency(4), False),
        (Concurrency(8), True),
        (Concurrency(16), False),
    ]


def measured(latency_ms: float, *, lag_ms: float, bound: str | None = None, kept_up: bool = True) -> OperatingPoint:
    """A round of an open loop to a model with several responses."""
    told = ResponseTimes(
        time_to_first_ms={"p50": interval(latency_ms), "p90": interval(5), "p95": interval(5), "p99": interval(5)},
        inter_response_ms={},
        per_request=3,
        per_s=300,
    )
    client = ClientView(cpu=lag_ms / 10, send_lag_ms={"p50": 0, "p99": lag_ms}, bound=bound)
    return point(RequestRate(100), 100, latency_ms, kept_up=kept_up).model_copy(
        update={"client": client, "responses": told}
    )


def test_rounds_add_up_in_all_that_they_say() -> None:
    together = Verification(
        trial=1, load=RequestRate(100), rounds=(measured(10, lag_ms=1), measured(20, lag_ms=3))
    ).point
    assert together is not None
    assert (together.load, together.kept_up) == (RequestRate(100), True)
    assert together.histogram.count == 6
    assert together.client == ClientView(cpu=0.2, send_lag_ms={"p50": 0, "p99": 2})
    assert together.received_bytes_per_s == 10_000
    assert together.responses is not None
    assert together.responses.time_to_first_ms["p50"].value == pytest.approx(15)
    assert (together.responses.inter_response_ms, together.responses.per_s) == ({}, 300)


def test_the_servers_reads_are_as_far_apart_as_all_rounds_are_long() -> None:
    def wall_s(*rounds: float | None) -> float | None:
        points = tuple(served_point(wall_s=seconds) for seconds in rounds)
        together = Verification(trial=1, load=Concurrency(1), rounds=points).point
        assert together is not None
        assert together.server is not None
        return together.server.wall_s

    assert wall_s(1.5, 2.0) == 3.5
    assert wall_s(1.5, None) is None


def test_what_went_wrong_in_one_round_is_said_of_all() -> None:
    rounds = (measured(10, lag_ms=1), measured(10, lag_ms=9, bound="it is busy", kept_up=False))
    together = Verification(trial=1, load=RequestRate(100), rounds=rounds).point
    assert together is not None
    assert together.client.bound == "it is busy"
    assert together.kept_up is False


def test_warnings_about_a_round_are_told_with_how_many_rounds_there_were() -> None:
    rounds = (point(8, 100, 10), point(8, 100, 10, errors=2), point(8, 100, 10))
    together = Verification(trial=1, load=Concurrency(8), rounds=rounds).point
    assert together is not None
    assert [(warning.check, warning.reason) for warning in together.warnings] == [
        (QualityCheck.FAILURES, "2 of 502 requests failed, most often with UNAVAILABLE: gone (in 1 of 3 rounds)")
    ]
    assert together.server is not None
    assert (together.server.requests, together.server.cache_hits) == (1_500, 0)


def test_the_load_comes_back_from_disk_as_it_was() -> None:
    assert Verification.model_validate_json(THREE.model_dump_json()) == THREE
    assert THREE.point is not None
    assert (THREE.point.kept_up, THREE.point.responses) == (None, None)


def test_another_load_of_the_trial_was_not_verified() -> None:
    trials = [trial(1, point(8, 500, 20), point(RequestRate(8), 200, 15, kept_up=True))]
    assert [each.verified for each in usable_points(trials, [THREE])] == [True, False]


def test_what_is_verified_takes_the_place_of_what_was_measured() -> None:
    trials = [trial(0, point(1, 100, 10)), trial(1, point(8, 500, 20), point(4, 200, 15))]
    found = recommend(trials, SLO(), [THREE])
    assert found.best is not None
    assert found.best.verified
    assert found.best.point.throughput.value == pytest.approx(330)
    assert len(found.front) == 3


def test_what_failed_when_verified_is_struck_off() -> None:
    trials = [trial(0, point(1, 100, 10)), trial(1, point(8, 500, 20), point(4, 200, 15))]
    failed = Verification(trial=1, load=Concurrency(8), rounds=THREE.rounds[:1], failure="crashed: it is gone")
    assert failed.point is None
    assert [each.point.load for each in usable_points(trials, [failed])] == [Concurrency(1), Concurrency(4)]
