"""Which config is the best one by each objective."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from support.builders import interval, judged, point, trial

from tuner.core.loads import Load, RequestRate
from tuner.core.objectives import THROUGHPUT, Objective
from tuner.core.slo import SLO, Statistic
from tuner.measure.gpu_view import GpuUsage, GpuView
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.recommend.front import hypervolume, pareto_front, points_of, rivals, usable_points
from tuner.recommend.not_chosen import WhyNot, not_chosen
from tuner.recommend.recommend import recommend
from tuner.recommend.rounds import VerificationTerms
from tuner.recommend.verification import Verification
from tuner.recommend.verify import verify

RATE = RequestRate(200.0)
QUICK = Objective.quickest(Statistic.parse("p99"), RATE.per_s)
PER_GPU, PER_JOULE = Objective(metric="throughput_per_gpu"), Objective(metric="inferences_per_joule")


def on_gpus(point: OperatingPoint, count: int = 1, watts: float | None = None) -> OperatingPoint:
    """A point of a server that uses GPUs, each of which draws some power."""
    views = tuple(GpuView(gpu=f"GPU {n}", uuid=f"GPU-{n}", power_w=watts) for n in range(count))
    return judged(point, gpu=GpuUsage(gpus=views))


def at_rate(p99: float, *, kept_up: bool = True, errors: int = 0) -> OperatingPoint:
    return point(RATE, 200, p99, kept_up=kept_up, errors=errors)


class TestValues:
    def test_throughput_is_divided_by_the_gpus_in_use(self) -> None:
        value = on_gpus(point(8, 300), count=2).value(PER_GPU)
        assert value == interval(150.0)

    def test_inferences_are_divided_by_the_energy_of_all_gpus(self) -> None:
        value = on_gpus(point(8, 300), count=2, watts=50.0).value(PER_JOULE)
        assert value == interval(3.0)

    def test_what_is_not_reported_is_unknown(self) -> None:
        assert point(8, 300).value(PER_GPU) is None
        assert on_gpus(point(8, 300)).value(PER_JOULE) is None
        with pytest.raises(ValueError, match="unknown inferences per joule"):
            on_gpus(point(8, 300)).merit(PER_JOULE)

    def test_the_merit_of_a_latency_is_its_inverse(self) -> None:
        made = at_rate(20.0)
        assert made.value(QUICK) == made.latency_ms["p99"]
        merit = made.merit(QUICK)
        assert (merit.value, merit.low, merit.high) == pytest.approx((50.0, 1e3 / 22, 1e3 / 18))


class TestPerGpu:
    def test_one_gpu_wins_over_two_that_are_not_twice_as_fast(self) -> None:
        trials = [
            trial(0, on_gpus(point(8, 100, 20))),
            trial(1, on_gpus(point(8, 300, 20), count=2)),
            trial(2, on_gpus(point(8, 200, 20), count=1)),
        ]
        by_throughput, per_gpu = (recommend(trials, SLO(), objective=each) for each in (THROUGHPUT, PER_GPU))
        assert by_throughput.best is not None
        assert per_gpu.best is not None
        assert (by_throughput.best.trial.number, per_gpu.best.trial.number) == (1, 2)
        assert per_gpu.gain is not None
        assert per_gpu.gain.value == pytest.approx(2.0)
        assert per_gpu.merits == pytest.approx((200.0, 100.0))

    def test_the_front_is_that_of_the_objective(self) -> None:
        points = [
            *points_of(trial(1, on_gpus(point(1, 300, 20), count=2)), (), PER_GPU),
            *points_of(trial(2, on_gpus(point(1, 200, 20))), (), PER_GPU),
        ]
        (front,) = pareto_front(points, "p99", PER_GPU)
        assert front.trial.number == 2
        assert rivals([front], "p99", PER_GPU).points == ((200.0, 20.0),)
        assert hypervolume(points, "p99", 30.0, PER_GPU) == pytest.approx(200 * 10)


class TestPerJoule:
    def test_a_slower_config_that_draws_less_wins(self) -> None:
        trials = [
            trial(0, on_gpus(point(8, 100, 20), watts=100)),
            trial(1, on_gpus(point(8, 300, 20), watts=300)),
            trial(2, on_gpus(point(8, 200, 20), watts=125)),
        ]
        found = recommend(trials, SLO({"p99": 25.0}), objective=PER_JOULE)
        assert found.best is not None
        assert found.best.trial.number == 2
        assert found.gain is not None
        assert found.gain.value == pytest.approx(1.6)

    def test_the_slo_must_hold(self) -> None:
        trials = [trial(0, on_gpus(point(8, 100, 20), watts=100)), trial(1, on_gpus(point(8, 300, 30), watts=100))]
        found = recommend(trials, SLO({"p99": 25.0}), objective=PER_JOULE)
        assert found.best is not None
        assert found.best.trial.number == 0

    def test_a_point_without_power_is_left_out(self) -> None:
        trials = [trial(0, on_gpus(point(8, 100, 20), watts=100)), trial(1, on_gpus(point(8, 300, 20)))]
        assert [p.trial.number for p in usable_points(trials, (), None, PER_JOULE)] == [0]
        found = recommend(trials, SLO(), objective=PER_JOULE)
        assert found.best is not None
        assert found.best.trial.number == 0


class TestQuickest:
    def test_the_lowest_latency_wins_and_the_gain_is_the_baselines_over_it(self) -> None:
        trials = [trial(0, at_rate(40.0)), trial(1, at_rate(10.0)), trial(2, at_rate(20.0))]
        found = recommend(trials, SLO(), objective=QUICK)
        assert found.best is not None
        assert found.best.trial.number == 1
        assert found.gain is not None
        assert found.gain.value == pytest.approx(4.0)
        assert found.gain.low < 4 < found.gain.high
        assert [p.trial.number for p in found.front] == [1]

    def test_a_config_that_does_not_keep_up_is_not_deployable(self) -> None:
        trials = [trial(0, at_rate(40.0)), trial(1, at_rate(10.0, kept_up=False)), trial(2, at_rate(5.0, errors=3))]
        found = recommend(trials, SLO(), objective=QUICK)
        assert found.best is not None
        assert found.best.trial.number == 0

    def test_a_baseline_that_does_not_keep_up_gives_no_gain(self) -> None:
        found = recommend([trial(0, at_rate(900.0, kept_up=False)), trial(1, at_rate(10.0))], SLO(), objective=QUICK)
        assert found.baseline is None
        assert found.gain is None
        assert found.best is not None
        assert found.best.trial.number == 1

    def test_another_percentile_may_be_limited(self) -> None:
        quick = Objective.quickest(Statistic.parse("latency.p50"), RATE.per_s)
        slow_tail = at_rate(60.0).model_copy(update={"latency_ms": {**at_rate(60.0).latency_ms, "p50": interval(4.0)}})
        trials = [trial(0, at_rate(40.0)), trial(1, slow_tail), trial(2, at_rate(20.0))]
        free, limited = (recommend(trials, slo, objective=quick) for slo in (SLO(), SLO({"p99": 50.0})))
        assert free.best is not None
        assert limited.best is not None
        assert (free.best.trial.number, limited.best.trial.number) == (1, 2)
        assert limited.percentile == "p50"

    def test_the_hypervolume_is_the_merit_of_the_quickest(self) -> None:
        points = [*points_of(trial(0, at_rate(40.0)), (), QUICK), *points_of(trial(1, at_rate(10.0)), (), QUICK)]
        assert hypervolume(points, "p99", 30.0, QUICK) == pytest.approx(100.0)
        assert hypervolume([], "p99", 30.0, QUICK) == 0.0

    def test_pairs_of_launches_give_the_gain(self) -> None:
        def rounds(number: int, *p99: float) -> Verification:
            points = tuple(at_rate(each) for each in p99)
            return Verification(trial=number, load=RATE, rounds=points, numbers=tuple(range(len(points))))

        verified = [rounds(0, 40.0, 44.0, 42.0), rounds(1, 20.0, 22.0, 21.0)]
        found = recommend([trial(0, at_rate(40.0)), trial(1, at_rate(10.0))], SLO(), verified, objective=QUICK)
        assert found.gain is not None
        assert found.pairs == 3
        assert found.gain.value == pytest.approx(2.0)

    def test_what_looked_quicker_is_told(self) -> None:
        trials = [trial(0, at_rate(40.0)), trial(1, at_rate(20.0)), trial(2, at_rate(5.0))]
        verified = [
            Verification(trial=1, load=RATE, rounds=(at_rate(20.0),) * 2, numbers=(1, 2)),
            Verification(trial=2, load=RATE, failure="the server did not keep up"),
        ]
        found = recommend(trials, SLO(), verified, objective=QUICK)
        assert found.best is not None
        assert found.best.trial.number == 1
        (better,) = not_chosen(trials, verified, found)
        assert (better.searched.trial.number, better.detail) == (2, "the server did not keep up")

    def test_without_a_limit_one_that_is_not_confirmed_is_told_so(self) -> None:
        trials = [trial(0, at_rate(12.0)), trial(1, at_rate(9.0))]
        verified = [
            Verification(trial=0, load=RATE, rounds=(at_rate(10.5),), numbers=(2,)),
            Verification(trial=1, load=RATE, rounds=(at_rate(10.0),), numbers=(1,), choosing=1),
        ]
        found = recommend(trials, SLO(), verified, objective=QUICK)
        assert found.best is not None
        assert found.best.trial.number == 0
        (better,) = not_chosen(trials, verified, found)
        assert better.why is WhyNot.UNCONFIRMED


class TestVerifying:
    """The candidate of most throughput draws so much that another one gives more inferences per joule."""

    # Throughput, p99 in ms, and power in W, by trial.
    TRUTHS = ((100.0, 10.0, 100.0), (300.0, 12.0, 300.0), (250.0, 12.0, 125.0))

    def measure(self, trial: TrialResult, loads: Sequence[Load], number: int) -> Iterator[OperatingPoint]:
        throughput, p99, watts = self.TRUTHS[trial.number]
        assert number
        self.launched.append(trial.number)
        for load in loads:
            yield on_gpus(point(load, throughput, p99), watts=watts)

    def test_the_finalists_are_those_of_the_objective(self) -> None:
        self.launched = list[int]()
        trials = [
            trial(number, *(on_gpus(point(load, throughput, p99), watts=watts) for load in (1, 8)))
            for number, (throughput, p99, watts) in enumerate(self.TRUTHS)
        ]
        terms = VerificationTerms(slo=SLO(), until=1e6, launch_s=4.0, now=lambda: 0.0, objective=PER_JOULE)
        verified = verify(trials, self.measure, terms)
        found = recommend(trials, SLO(), verified, objective=PER_JOULE)
        assert found.best is not None
        assert (found.best.trial.number, found.best.confirmed) == (2, True)
        assert self.launched.count(2) > self.launched.count(1)
        assert found.gain is not None
        assert found.gain.value == pytest.approx(2.0, rel=0.01)
