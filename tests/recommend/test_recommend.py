from __future__ import annotations

import math

import pytest
from support.builders import interval, point, trial
from support.nvml import GIB

from tuner.core.errors import Cause
from tuner.core.loads import Concurrency
from tuner.core.record import Interval
from tuner.core.slo import SLO, Percentile
from tuner.measure.gpu_view import GpuMemory
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.recommend.front import points_of
from tuner.recommend.recommend import Recommendation, is_certain, recommend, versus
from tuner.recommend.verification import Verification
from tuner.stats.slo_verdict import SLOTest

LIMIT = SLO.parse(["p99=25ms"])


def test_the_best_has_the_highest_throughput_that_holds_the_slo() -> None:
    found = recommend(
        [trial(0, point(1, 100, 10)), trial(1, point(1, 90, 5), point(8, 300, 24), point(16, 400, 26))], LIMIT
    )
    assert found.best is not None
    assert (found.best.trial.number, found.best.point.load) == (1, Concurrency(8))
    assert found.gain is not None
    # By the curve through all three points, not by one of them alone.
    assert found.gain.value == pytest.approx(3.0, rel=0.01)


class TestEqualLoad:
    """The baseline's own load, of a noisy sweep, was 2; the candidate's is 16, and both were launched side by side."""

    @staticmethod
    def found(p99: float, over: int, own: int = 3) -> Recommendation:
        """With what the baseline does at 16: its latency, and how many of 2,000 requests are over the limit.

        Of its own load there are so many rounds.
        """

        def rounds(number: int, load: int, rate: float, latency: float, over: int) -> Verification:
            test = SLOTest(percentile="p99", limit_ms=25.0, requests=2000, over=over, design_effect=1.0)
            measured = point(load, rate, latency).model_copy(update={"limits": (test,)})
            return Verification(trial=number, load=Concurrency(load), rounds=(measured,) * 3, numbers=(1, 2, 3))

        few = rounds(0, 2, 200, 10, 0)
        verified = [
            few.model_copy(update={"rounds": few.rounds[:own], "numbers": few.numbers[:own]}),
            rounds(0, 16, 400, p99, over),
            rounds(1, 16, 400, 20, 0),
        ]
        return recommend([trial(0, point(2, 200, 10)), trial(1, point(16, 400, 20))], LIMIT, verified)

    def test_a_load_that_was_chosen_too_low_makes_no_gain(self) -> None:
        found = self.found(20, 0)
        assert found.gain is not None
        assert found.gain.value == pytest.approx(1.0)
        assert found.baseline is not None
        assert found.baseline.point.load == Concurrency(16)

    def test_what_ran_side_by_side_counts_before_what_only_the_search_saw(self) -> None:
        own, candidate = trial(0, point(2, 500, 10)), trial(1, point(16, 400, 20))
        verified = [
            Verification(trial=each.number, load=Concurrency(16), rounds=(point(16, 400, 20),) * 3, numbers=(1, 2, 3))
            for each in (own, candidate)
        ]
        (other, equal), (best,) = points_of(own, verified), points_of(candidate, verified)
        found, gain = versus(best, other, (other, equal), LIMIT, verified)
        assert found is equal
        assert gain.ratio.value == pytest.approx(1.0)
        assert gain.pairs == 3

    def test_where_it_surely_breaks_the_slo_its_own_load_counts(self) -> None:
        found = self.found(50, 1000)
        assert found.gain is not None
        assert found.gain.value == pytest.approx(2.0)
        assert found.gain.low > 1.8

    def test_where_too_many_are_over_by_chance_its_latency_within_the_limit_counts(self) -> None:
        found = self.found(20, 22)
        assert found.gain is not None
        assert found.gain.value == pytest.approx(1.0)
        assert found.gain.high > 2.0

    def test_where_that_is_not_sure_the_interval_holds_both(self) -> None:
        found = self.found(30, 20)
        assert found.gain is not None
        assert found.gain.low < 1.0
        assert found.gain.high > 2.0
        # Its latency reaches 25 ms at so much of the way from 10 to 30.
        share = math.log(2.5) / math.log(3.0)
        assert found.gain.value == pytest.approx(2.0 ** (1 - share))
        assert (found.pairs, self.found(30, 20, own=2).pairs) == (3, 2)


def test_wide_intervals_are_no_reason_to_give_up_a_third() -> None:
    wide = [point(2, 600, 5, share=0.4), point(16, 900, 22, share=0.4), point(8, 850, 12, share=0.4)]
    best = recommend([trial(0, *wide)], LIMIT).best
    assert best is not None
    assert best.point.throughput.value == 850


@pytest.mark.parametrize(("p99", "expected"), [(19, 900), (22, 850)])
def test_throughput_is_given_away_only_near_the_limit(p99: float, expected: float) -> None:
    """What may hold the SLO by luck gives way to what has room to it, and may be as good."""
    wide = [point(4, 820, 8, share=0.4), point(8, 850, 12, share=0.4), point(16, 900, p99, share=0.4)]
    best = recommend([trial(0, *wide)], LIMIT).best
    assert best is not None
    assert best.point.throughput.value == expected


def test_of_what_gives_the_same_with_room_to_the_limit_the_quickest_is_best() -> None:
    best = recommend([trial(0, point(8, 880, 10, share=0.1), point(16, 900, 15, share=0.1))], LIMIT).best
    assert best is not None
    assert best.point.load == Concurrency(8)


def test_points_whose_intervals_overlap_go_by_latency() -> None:
    found = recommend([trial(0, point(16, 300, 10), point(32, 305, 20), point(64, 330, 24.9))], SLO())
    assert found.best is not None
    assert found.best.point.load == Concurrency(64)
    wide = recommend([trial(0, point(16, 300, 10, share=0.1), point(32, 305, 20, share=0.1))], SLO())
    assert wide.best is not None
    assert wide.best.point.load == Concurrency(16)


def test_what_another_beats_in_both_is_not_the_best_for_its_wider_interval() -> None:
    """The interval of the first does not reach that of the highest; that of the second, which gives less, does."""
    narrow, wide = point(6, 978, 22, share=0.005), point(8, 974, 26, share=0.03)
    found = recommend([trial(0, narrow, wide, point(32, 1000, 78, share=0.005))], SLO())
    assert found.best is not None
    assert found.best in found.front


def test_a_baseline_that_holds_the_slo_at_no_load_gives_no_gain() -> None:
    found = recommend([trial(0, point(1, 100, 50)), trial(1, point(1, 90, 5))], LIMIT)
    assert found.baseline is None
    assert found.gain is None
    assert found.best is not None
    assert found.best.trial.number == 1


def test_what_failed_is_not_recommended_but_a_baseline_is_still_compared_with() -> None:
    baseline = trial(0, point(1, 100, 5), failure=Cause.CRASHED)
    crashed = trial(1, point(1, 900, 5), failure=Cause.HUNG)
    found = recommend([baseline, crashed, trial(2, point(1, 200, 5))], SLO())
    assert found.best is not None
    assert found.best.trial.number == 2
    assert found.gain is not None
    assert found.gain.value == pytest.approx(2.0)


def test_no_best_when_none_holds() -> None:
    found = recommend([trial(0, point(1, 100, 50))], LIMIT)
    assert found.best is None
    assert len(found.front) == 1


def test_the_baseline_can_be_the_best() -> None:
    found = recommend([trial(0, point(1, 100, 5)), trial(1, point(1, 50, 5))], SLO())
    assert found.best == found.baseline
    assert found.gain is not None
    assert found.gain.value == 1.0


def _verified(
    number: int, load: int, *rates: float, limits: tuple[SLOTest, ...] = (), choosing: int = 0
) -> Verification:
    rounds = tuple(point(load, rate, 20).model_copy(update={"limits": limits}) for rate in rates)
    return Verification(trial=number, load=Concurrency(load), rounds=rounds, choosing=choosing)


def _test(over: int, limit_ms: float = 25.0) -> tuple[SLOTest, ...]:
    return (SLOTest(percentile="p99", limit_ms=limit_ms, requests=1_000, over=over, design_effect=1),)


def test_the_best_is_one_that_was_verified() -> None:
    trials = [trial(0, point(1, 100, 20)), trial(1, point(8, 300, 20)), trial(2, point(8, 400, 20))]
    found = recommend(trials, SLO(), [_verified(1, 8, 280, 290, 285)])
    assert found.best is not None
    assert (found.best.trial.number, found.best.verified) == (1, True)


def test_far_more_that_there_was_no_time_to_verify_is_not_lost() -> None:
    trials = [trial(0, point(1, 100, 20)), trial(1, point(8, 300, 20)), trial(2, point(8, 900, 20))]
    found = recommend(trials, SLO(), [_verified(0, 1, 100, 100), _verified(1, 8, 280, 290, 285)])
    assert found.best is not None
    assert (found.best.trial.number, found.best.verified) == (2, False)


def test_what_was_measured_once_on_a_quicker_machine_does_not_win() -> None:
    trials = [trial(0, point(1, 100, 5)), trial(1, point(16, 600, 15), point(32, 700, 24))]
    # All is half as quick as it was.
    verified = [_verified(0, 1, 50, 50, limits=_test(0)), _verified(1, 24, 300, 310, limits=_test(0))]
    best = recommend(trials, LIMIT, verified).best
    assert best is not None
    assert (best.point.load, best.verified) == (Concurrency(24), True)


@pytest.mark.parametrize(("own_ms", "expected"), [(7.5, 4), (20.0, 8)])
def test_what_the_search_saw_is_to_hold_the_slo_when_all_is_slower(own_ms: float, expected: int) -> None:
    trials = [
        trial(0, point(1, 100, own_ms)),
        trial(1, point(2, 100, own_ms)),
        trial(2, point(4, 500, 10 if own_ms < 10 else 20), point(8, 900, 20)),
    ]
    twice_as_slow = [
        Verification(trial=number, load=Concurrency(load), rounds=(point(load, 50, 2 * own_ms),) * 2)
        for number, load in ((0, 1), (1, 2))
    ]
    best = recommend(trials, LIMIT, twice_as_slow).best
    assert best is not None
    # Where nothing would, what the search saw is all there is.
    assert (best.trial.number, best.point.load) == (2, Concurrency(expected))


def test_the_chosen_one_comes_before_one_that_lost_the_choice() -> None:
    trials = [trial(0, point(1, 100, 20)), trial(1, point(8, 300, 20)), trial(2, point(8, 310, 20))]
    lost, chosen = _verified(1, 8, 330, 340, choosing=2), _verified(2, 8, 320, 300, 310, choosing=1)
    found = recommend(trials, SLO(), [lost, chosen])
    assert found.best is not None
    assert (found.best.trial.number, found.best.confirmed) == (2, True)
    assert found.best.point.throughput.value == 305


@pytest.mark.parametrize(("sure", "expected"), [(290, 1), (200, 2)])
def test_to_hold_the_slo_for_sure_is_worth_some_throughput(sure: float, expected: int) -> None:
    trials = [trial(0, point(1, 50, 20)), trial(1, point(8, sure, 20)), trial(2, point(8, 300, 24))]
    verified = [_verified(1, 8, sure, sure, limits=_test(0)), _verified(2, 8, 300, 300, limits=_test(9))]
    found = recommend(trials, LIMIT, verified)
    assert found.best is not None
    assert found.best.trial.number == expected
    assert is_certain(found.best, LIMIT) is (expected == 1)


def test_what_surely_breaks_the_slo_does_not_hold_it_whatever_its_mean() -> None:
    trials = [trial(0, point(1, 50, 20)), trial(1, point(8, 300, 20))]
    found = recommend(trials, LIMIT, [_verified(1, 8, 300, 300, limits=_test(40))])
    assert found.best is not None
    assert found.best.trial.number == 0


def test_the_rounds_that_chose_it_count_for_the_slo() -> None:
    trials = [trial(0, point(1, 100, 20)), trial(1, point(8, 300, 20)), trial(2, point(8, 290, 20))]
    over, within = (point(8, 300, p99).model_copy(update={"limits": _test(n)}) for p99, n in ((40, 30), (20, 8)))
    lucky = Verification(trial=1, load=Concurrency(8), rounds=(over, within), choosing=1)
    steady = _verified(2, 8, 270, 270, limits=_test(8))
    assert lucky.point is not None
    assert lucky.point.holds(LIMIT)
    best = recommend(trials, LIMIT, [lucky, steady]).best
    assert best is not None
    assert best.trial.number == 2
    # By another limit it is not judged by the tests of this one.
    looser = recommend(trials, SLO.parse(["p99=50ms"]), [lucky]).best
    assert looser is not None
    assert looser.trial.number == 1


def test_for_another_slo_all_that_was_measured_counts() -> None:
    trials = [trial(0, point(1, 50, 20)), trial(1, point(8, 300, 20)), trial(2, point(8, 400, 28))]
    verified = [_verified(1, 8, 290, 290, limits=_test(0))]
    found = recommend(trials, SLO.parse(["p99=30ms"]), verified)
    assert found.best is not None
    assert found.best.trial.number == 2


def test_what_is_surely_slower_than_the_baseline_is_not_the_best_for_its_latency() -> None:
    """Their intervals overlap, and yet they are surely not the same: 0.91 x, 0.98 at the most."""
    found = recommend([trial(0, point(16, 100, 20, share=0.05)), trial(1, point(8, 91, 10, share=0.055))], SLO())
    assert found.best == found.baseline
    assert found.gain is not None
    assert found.gain.value == 1.0


@pytest.mark.parametrize(("p99", "expected"), [(19, 0), (10, 1)])
def test_what_may_be_slower_than_the_baseline_must_at_least_be_quicker(p99: float, expected: int) -> None:
    """Where throughput is the same but for noise, only a latency that is surely lower is worth a change."""
    found = recommend([trial(0, point(16, 100, 20, share=0.05)), trial(1, point(8, 97, p99, share=0.05))], SLO())
    assert found.best is not None
    assert found.best.trial.number == expected
    assert found.gain is not None
    assert found.gain.value == pytest.approx(0.97 if expected else 1.0)


def test_what_takes_too_much_memory_of_a_gpu_is_neither_best_nor_on_the_front() -> None:
    def taking(number: int, rate: float, taken: int) -> TrialResult:
        memory = GpuMemory(gpu="GPU 0", peak_bytes=taken * GIB)
        return trial(number, point(8, rate, 5)).model_copy(update={"gpu_memory": memory})

    trials = [taking(0, 100, 2), taking(1, 400, 9), taking(2, 200, 8)]
    found = recommend(trials, SLO(), (), 8 * GIB)
    assert found.best is not None
    assert found.best.trial.number == 2
    assert [each.trial.number for each in found.front] == [2]
    unlimited = recommend(trials, SLO())
    assert unlimited.best is not None
    assert unlimited.best.trial.number == 1
    # The gain is against the baseline, whatever that takes.
    over = recommend([taking(0, 100, 9), taking(1, 400, 2)], SLO(), (), 8 * GIB)
    assert over.gain is not None
    assert over.gain.value == pytest.approx(4)


def test_what_breaks_the_slo_when_measured_again_breaks_it_under_more_load_too() -> None:
    trials = [trial(0, point(2, 100, 10)), trial(1, point(4, 120, 10), point(8, 200, 20), point(10, 230, 24))]
    tests = (SLOTest(percentile="p99", limit_ms=25.0, requests=1_000, over=0, design_effect=1),)
    own = (point(2, 100, 10).model_copy(update={"limits": tests}),) * 2
    again = (point(8, 190, 30).model_copy(update={"limits": tests}),) * 2
    verified = [
        Verification(trial=0, load=Concurrency(2), rounds=own, choosing=0),
        Verification(trial=1, load=Concurrency(8), rounds=again, choosing=0),
    ]
    best = recommend(trials, LIMIT, verified).best
    assert best is not None
    assert (best.trial.number, best.point.load) == (0, Concurrency(2))


def _with_p50(made: OperatingPoint, p50: float) -> OperatingPoint:
    return made.model_copy(update={"latency_ms": {**made.latency_ms, "p50": interval(p50)}})


@pytest.mark.parametrize(("slo", "expected"), [({"p50": 50.0}, 8), ({"p99": 90.0}, 16), ({}, 16)])
def test_of_what_gives_the_same_it_is_the_percentile_of_the_slo_that_says_what_is_quickest(
    slo: dict[Percentile, float], expected: int
) -> None:
    """The one is quicker in the middle, the other at the end."""
    found = recommend([trial(0, _with_p50(point(8, 900, 40), 8), _with_p50(point(16, 905, 30), 12))], SLO(slo))
    assert found.best is not None
    assert found.best.point.load == Concurrency(expected)


@pytest.mark.parametrize(("slo", "expected"), [({"p50": 50.0}, 1), ({"p99": 90.0}, 0), ({}, 0)])
def test_what_gives_a_little_less_must_be_quicker_at_the_percentile_of_the_slo(
    slo: dict[Percentile, float], expected: int
) -> None:
    baseline, other = point(16, 100, 20, share=0.05), point(8, 99, 30, share=0.05)
    trials = [trial(0, _with_p50(baseline, 10)), trial(1, _with_p50(other, 5))]
    found = recommend(trials, SLO(slo))
    assert found.best is not None
    assert found.best.trial.number == expected


def test_a_throughput_that_may_be_none_is_not_the_baselines() -> None:
    """Its curve says otherwise, so that what is shown of the baseline would not be what the gain is from."""
    unknown = point(4, 280, 10).model_copy(update={"throughput": Interval(value=280, low=0, high=640)})
    own = trial(0, point(1, 90, 10), point(2, 94, 10), unknown)
    found = recommend([own, trial(1, point(1, 290, 6))], LIMIT)
    assert found.baseline is not None
    assert found.baseline.point.load == Concurrency(2)
    assert found.best is not None
    assert found.gain is not None
    shown = found.best.point.throughput.value / found.baseline.point.throughput.value
    assert found.gain.value == pytest.approx(shown, rel=0.1)


def test_a_throughput_that_may_be_none_counts_where_there_is_no_other() -> None:
    unknown = point(1, 280, 10).model_copy(update={"throughput": Interval(value=280, low=0, high=640)})
    found = recommend([trial(0, unknown)], LIMIT)
    assert found.baseline is not None
    assert found.baseline.point.load == Concurrency(1)
