from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from support.builders import MLP, point, space, trial
from support.histories import Past, walk
from support.known_truth import Truth

from tuner.core.errors import Cause
from tuner.core.objectives import Objective
from tuner.core.slo import SLO, Statistic
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.search.goal import Goal
from tuner.search.samplers import NoMore, TpeSampler
from tuner.search.twin_sampler import TwinSampler, calibrations
from tuner.space.candidate import Assignment, key_of
from tuner.space.space import SearchSpace

P99_40 = SLO({"p99": 40.0})


def sampler(built: SearchSpace, slo: SLO = P99_40, notes: list[str] | None = None) -> TwinSampler:
    note: Callable[[str], None] = ([] if notes is None else notes).append
    return TwinSampler(built, 0, Goal(slo, 1, 128), TpeSampler(built, 0), note)


def begun(built: SearchSpace, truth: Truth, slo: SLO = P99_40) -> Past:
    past = Past(built, slo)
    past.trials.append(truth.trial(built, 0, built.baseline))
    return past


def reached(result: TrialResult, slo: SLO) -> float:
    holding: list[OperatingPoint] = [each for each in result.curve if each.holds(slo)]
    return max((each.throughput.value for each in holding), default=0.0)


SMALL = """
schema: 1
parameters:
  dynamic_batching: {ladder: [off, on]}
  max_batch_size: {ladder: [4, 16, 64]}
  dynamic_batching.max_queue_delay_microseconds: {ladder: [off, 2000]}
  instance_group.count: {field: "instance_group[*].count", ladder: [1, 2, 4]}
"""


@pytest.mark.parametrize(
    "truth",
    [
        Truth(fixed_ms=5.0, item_ms=0.2, neighbour=0.5, noise=0.03),
        Truth(fixed_ms=0.2, item_ms=1.0, neighbour=0.1, noise=0.03),
        Truth(fixed_ms=5.0, item_ms=0.4, neighbour=1.1, noise=0.03),
    ],
    ids=["batches pay", "instances pay", "instances are in each other's way"],
)
def test_a_handful_of_launches_comes_near_the_best(truth: Truth) -> None:
    built = space(SMALL)
    past = begun(built, truth)
    walk(sampler(built), past, lambda number, each: truth.trial(built, number, each), 5)
    still = Truth(truth.fixed_ms, truth.item_ms, truth.neighbour)
    best = max(reached(still.trial(built, 0, each), P99_40) for each in built.assignments())
    found = max(reached(still.trial(built, 0, each), P99_40) for each in past.seen)
    assert found >= 0.95 * best


def test_the_first_launch_is_the_one_that_teaches_most() -> None:
    built = space(SMALL)
    past = begun(built, Truth(5.0, 0.2))
    assert sampler(built).propose(past, past.seen) == next(calibrations(built))


@pytest.mark.slow
def test_no_candidate_is_launched_again() -> None:
    built = space(SMALL)
    past = begun(built, Truth(5.0, 0.2))
    walk(sampler(built), past, lambda number, each: Truth(5.0, 0.2, noise=0.2).trial(built, number, each), 9)
    keys = [key_of(each) for each in past.seen]
    assert len(set(keys)) == len(keys) >= 4


@pytest.mark.slow
def test_where_nothing_holds_the_limit_it_comes_nearer() -> None:
    built, slo = space(SMALL + UNKNOWN), SLO({"p99": 4.0})
    past = begun(built, Truth(5.0, 0.2), slo)

    def measure(number: int, assignment: Assignment) -> TrialResult:
        quicker = (0.85 if assignment["mode"] == "fast" else 1.0) * (0.7 if assignment["cache"] == "2" else 1.0)
        return Truth(5.0 * quicker, 0.2 * quicker, noise=0.02).trial(built, number, assignment)

    walk(sampler(built, slo), past, measure, 5)
    assert not any(reached(each, slo) for each in past.trials[:3])
    assert any(reached(each, slo) for each in past.trials)


@pytest.mark.slow
def test_where_nothing_holds_the_limit_it_mostly_keeps_one_instance() -> None:
    built, slo = space(SMALL + UNKNOWN), SLO({"p99": 2.0})
    past = begun(built, Truth(5.0, 0.2), slo)
    walk(sampler(built, slo), past, lambda number, each: Truth(5.0, 0.2, noise=0.02).trial(built, number, each), 4)
    assert [each["instance_group.count"] for each in past.seen].count(1) >= 4


def test_it_ends_when_nothing_more_is_to_be_gained() -> None:
    built = space(SMALL)
    past = begun(built, Truth(5.0, 0.2))
    ended = walk(sampler(built), past, lambda number, each: Truth(5.0, 0.2).trial(built, number, each), 30)
    assert isinstance(ended, NoMore)
    assert ended.reason.startswith("the simulator expects no candidate to gain more than 1% (highest probability: ")
    assert len(past.trials) < 15


@pytest.mark.slow
def test_a_resumed_search_goes_on_as_it_would_have() -> None:
    built, truth = space(SMALL), Truth(5.0, 0.2, neighbour=0.3, noise=0.05)
    past, one = begun(built, truth), sampler(built)
    walk(one, past, lambda number, each: truth.trial(built, number, each), 5)
    assert one.propose(past, past.seen) == sampler(built).propose(past, past.seen)


def test_without_a_limit_it_seeks_the_front() -> None:
    built, truth = space(SMALL), Truth(5.0, 0.2, neighbour=0.3)
    past = begun(built, truth, SLO())
    walk(sampler(built, SLO()), past, lambda number, each: truth.trial(built, number, each), 6)
    best = max(reached(truth.trial(built, 0, each), SLO()) for each in built.assignments())
    assert max(reached(each, SLO()) for each in past.trials) >= 0.95 * best


def test_what_did_not_fit_is_not_tried_larger() -> None:
    built, truth = space(SMALL), Truth(5.0, 0.2)

    def measure(number: int, assignment: Assignment) -> TrialResult:
        if assignment["instance_group.count"] == 4:
            return trial(number, parameters=assignment, failure=Cause.OUT_OF_MEMORY)
        return truth.trial(built, number, assignment)

    past = begun(built, truth)
    walk(sampler(built), past, measure, 12)
    tried = [each for each in past.seen if each["instance_group.count"] == 4]
    sizes = [each.get("max_batch_size", 1) for each in tried]
    assert sizes == sorted(set(sizes), reverse=True)


def test_a_crash_spares_nobody_else() -> None:
    built, truth = space(SMALL), Truth(5.0, 0.2)

    def measure(number: int, assignment: Assignment) -> TrialResult:
        if number == 2:
            return trial(number, parameters=assignment, failure=Cause.CRASHED)
        return truth.trial(built, number, assignment)

    past = begun(built, truth)
    walk(sampler(built), past, measure, 8)
    assert past.trials[2].failure
    assert any(each["instance_group.count"] in {2, 4} for each in past.seen[3:])


@pytest.mark.slow
def test_what_it_does_not_know_it_lets_others_propose() -> None:
    built = space(SMALL + "  THREADS: {field: 'parameters[\"THREADS\"].string_value', ladder: [off, '1', '2']}")
    past = begun(built, Truth(5.0, 0.2))

    def measure(number: int, assignment: Assignment) -> TrialResult:
        quicker = 0.4 if assignment["THREADS"] == "2" else 1.0
        return Truth(5.0 * quicker, 0.2 * quicker).trial(built, number, assignment)

    walk(sampler(built), past, measure, 11)
    best = max(past.trials, key=lambda each: reached(each, P99_40))
    assert best.parameters["THREADS"] == "2"


UNKNOWN = """
  mode: {field: 'parameters["MODE"].string_value', ladder: [off, fast, broken]}
  cache: {field: 'parameters["CACHE"].string_value', ladder: [off, '1', '2']}
"""


@pytest.mark.slow
def test_what_it_does_not_know_is_chosen_together_with_the_scheduling() -> None:
    built = space(SMALL + UNKNOWN)
    past = begun(built, Truth(5.0, 0.2))

    def measure(number: int, assignment: Assignment) -> TrialResult:
        if assignment["mode"] == "broken":
            return trial(number, parameters=assignment, failure=Cause.CRASHED)
        quicker = 0.5 if assignment["mode"] == "fast" else 1.0
        return Truth(5.0 * quicker, 0.2 * quicker, noise=0.02).trial(built, number, assignment)

    ended = walk(sampler(built), past, measure, 24)
    best = max(past.trials, key=lambda each: reached(each, P99_40))
    assert best.parameters["mode"] == "fast"
    assert best.parameters["dynamic_batching"] == "on"
    # What crashes is not tried again and again, and nothing stays untried.
    assert sum(each["mode"] == "broken" for each in past.seen) <= 4
    assert {each["cache"] for each in past.seen} > {"off"}
    assert isinstance(ended, NoMore)


def test_a_twin_that_is_far_off_steps_back() -> None:
    built, notes = space(SMALL), list[str]()

    def measure(number: int, assignment: Assignment) -> TrialResult:
        return Truth(5.0 * 6.0 ** (number % 2), 0.2).trial(built, number, assignment)

    past = begun(built, Truth(5.0, 0.2))
    walk(sampler(built, notes=notes), past, measure, 10)
    (note,) = notes
    assert note.startswith("simulator off: its median error of throughput is ")
    assert note.endswith("%; using the tpe sampler")


@pytest.mark.parametrize("slower", [2.0, 3.0])
def test_one_bad_moment_of_the_machine_is_no_reason_to_step_back(slower: float) -> None:
    built, notes = space(SMALL), list[str]()

    def measure(number: int, assignment: Assignment) -> TrialResult:
        times = slower if number == 3 else 1.0
        return Truth(5.0 * times, 0.2 * times).trial(built, number, assignment)

    past = begun(built, Truth(5.0, 0.2))
    walk(sampler(built, notes=notes), past, measure, 8)
    assert not notes


@pytest.mark.parametrize(
    ("config", "note"),
    [
        (
            MLP + "response_cache { enable: true }",
            "cannot simulate this model's scheduler: it uses the response cache; using the tpe sampler",
        ),
        (MLP, "simulator off: the server reports no execution times; using the tpe sampler"),
    ],
)
def test_where_it_cannot_know_tpe_proposes(config: str, note: str) -> None:
    built, notes = space(SMALL, config), list[str]()
    past = Past(built, P99_40, [trial(0, point(1).model_copy(update={"server": None}), parameters=built.baseline)])
    proposed = sampler(built, notes=notes).propose(past, past.seen)
    assert proposed == TpeSampler(built, 0).propose(past, past.seen)
    assert notes == [note]


class TestAtAFixedRate:
    RATE = 300.0
    QUICK = Objective.quickest(Statistic.parse("p99"), RATE)

    def sampler(self, built: SearchSpace, notes: list[str] | None = None) -> TwinSampler:
        note: Callable[[str], None] = ([] if notes is None else notes).append
        return TwinSampler(built, 0, Goal(SLO(), 1, 128, None, self.QUICK), TpeSampler(built, 0), note)

    def begun(self, built: SearchSpace, truth: Truth) -> Past:
        return Past(built, SLO(), [truth.trial(built, 0, built.baseline, self.RATE)], self.QUICK)

    def p99_ms(self, result: TrialResult) -> float:
        (measured,) = result.curve
        return measured.latency_ms["p99"].value if measured.kept_up else math.inf

    @pytest.mark.parametrize(
        "truth",
        [Truth(5.0, 0.4, neighbour=1.1, noise=0.03), Truth(1.0, 0.2, neighbour=0.3, noise=0.03)],
        ids=["the baseline does not keep up", "the baseline keeps up"],
    )
    def test_a_handful_of_launches_finds_almost_the_quickest(self, truth: Truth) -> None:
        built, notes = space(SMALL), list[str]()
        past = self.begun(built, truth)
        assert (past.trials[0].curve[0].kept_up is False) is (truth.fixed_ms == 5.0)
        walk(self.sampler(built, notes), past, lambda n, each: truth.trial(built, n, each, self.RATE), 6)
        still = replace(truth, noise=0.0)
        best = min(self.p99_ms(still.trial(built, 0, each, self.RATE)) for each in built.assignments())
        found = min(self.p99_ms(still.trial(built, 0, each, self.RATE)) for each in past.seen)
        assert found <= 1.05 * best
        assert notes == []

    def test_while_nothing_keeps_up_the_other_sampler_proposes(self) -> None:
        built, notes = space(SMALL), list[str]()
        slow = Truth(100.0, 50.0)
        past = self.begun(built, slow)
        assert walk(self.sampler(built, notes), past, lambda n, each: slow.trial(built, n, each, self.RATE), 5) is None
        assert len(past.trials) == 6
        assert notes == []
