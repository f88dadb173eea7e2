"""Proposals while other trials are under way."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import pytest
from support.builders import point, space, trial
from support.histories import Past, walk, walk_in_parallel
from support.known_truth import Truth

from tuner.core.objectives import Objective
from tuner.core.slo import SLO, Statistic
from tuner.measure.trial import TrialResult
from tuner.search.choose_sampler import first_candidates
from tuner.search.goal import Goal
from tuner.search.proposals import Proposals
from tuner.search.samplers import (
    FirstThen,
    GridSampler,
    NoMore,
    Pending,
    RandomSampler,
    Sampler,
    TpeSampler,
    TrialHistory,
)
from tuner.search.twin_sampler import TwinSampler, calibrations
from tuner.space.candidate import Assignment, key_of
from tuner.space.space import SearchSpace
from tuner.study.objectives import as_running

P99_40 = SLO({"p99": 40.0})
SPACE = """
schema: 1
parameters:
  dynamic_batching: {ladder: [off, on]}
  max_batch_size: {ladder: [4, 16, 64]}
  dynamic_batching.max_queue_delay_microseconds: {ladder: [off, 2000]}
  instance_group.count: {field: "instance_group[*].count", ladder: [1, 2, 4]}
"""
TRUTH = Truth(5.0, 0.2, neighbour=0.3, noise=0.03)


def _random(built: SearchSpace) -> Sampler:
    return RandomSampler(built, 0)


def _grid(built: SearchSpace) -> Sampler:
    return GridSampler(built)


def _tpe(built: SearchSpace) -> Sampler:
    return FirstThen(first_candidates(built), TpeSampler(built, 0))


def _twin(built: SearchSpace, slo: SLO = P99_40, notes: list[str] | None = None) -> TwinSampler:
    note: Callable[[str], None] = ([] if notes is None else notes).append
    return TwinSampler(built, 0, Goal(slo, 1, 128), TpeSampler(built, 0), note)


def _quickest(built: SearchSpace) -> Sampler:
    quick = Objective.quickest(Statistic.parse("p99"), 300.0)
    return TwinSampler(built, 0, Goal(SLO(), 1, 128, None, quick), TpeSampler(built, 0), lambda _text: None)


SAMPLERS = {"random": _random, "grid": _grid, "tpe": _tpe, "twin": _twin}
any_sampler = pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)


def _begun(built: SearchSpace, slo: SLO = P99_40) -> Past:
    return Past(built, slo, [TRUTH.trial(built, 0, built.baseline)])


def _measure(built: SearchSpace) -> Callable[[int, Assignment], TrialResult]:
    return lambda number, each: TRUTH.trial(built, number, each)


def _varied(number: int) -> float:
    """Trials end in another order than they began."""
    return float(np.random.default_rng(number).lognormal(0.0, 0.7))


@pytest.mark.slow
@any_sampler
def test_what_is_pending_is_not_proposed_again(make: Callable[[SearchSpace], Sampler]) -> None:
    built = space(SPACE)
    past = _begun(built)
    walk_in_parallel(make(built), past, _measure(built), 9, slots=4, takes=_varied)
    keys = [key_of(each) for each in past.seen]
    assert len(set(keys)) == len(keys) >= 6
    assert [each.number for each in past.trials] != sorted(each.number for each in past.trials)


@pytest.mark.slow
@any_sampler
def test_one_slot_proposes_what_a_search_without_slots_does(make: Callable[[SearchSpace], Sampler]) -> None:
    built = space(SPACE)
    one, other = _begun(built), _begun(built)
    walk(make(built), one, _measure(built), 4)
    walk_in_parallel(make(built), other, _measure(built), 4, slots=1)
    assert one.seen == other.seen


@any_sampler
@pytest.mark.slow
def test_a_stored_study_tells_its_proposals_again(make: Callable[[SearchSpace], Sampler]) -> None:
    built = space(SPACE)
    past = _begun(built)
    walk_in_parallel(make(built), past, _measure(built), 8, slots=3, takes=_varied)
    stored = [TrialResult.model_validate_json(each.model_dump_json()) for each in past.trials]
    parameters = {each.number: each.parameters for each in stored}
    sampler = make(built)
    for each in sorted(stored[1:], key=lambda other: other.number):
        assert each.after is not None
        before = Past(built, P99_40, stored[: len(each.after)])
        assert [other.number for other in before.trials] == list(each.after)
        pending = [Pending(number, parameters[number]) for number in each.beside]
        assert Proposals(built, before, sampler).next(pending) == each.parameters


@pytest.mark.slow
def test_a_fresh_simulator_proposes_the_same_from_what_is_finished_and_pending() -> None:
    built = space(SPACE)
    past, one = _begun(built), _twin(built)
    walk_in_parallel(one, past, _measure(built), 6, slots=3, takes=_varied)
    pending = [Pending(7, next(each for each in built.assignments() if each not in past.seen))]
    seen = [*past.seen, pending[0].assignment]
    assert one.propose(past, seen, pending) == _twin(built).propose(past, seen, pending)


@pytest.mark.slow
def test_what_is_pending_changes_what_the_simulator_proposes() -> None:
    built = space(SPACE)
    past = _begun(built)
    walk(_twin(built), past, _measure(built), 2)
    alone = _twin(built).propose(past, past.seen)
    assert not isinstance(alone, NoMore)
    beside = _twin(built).propose(past, [*past.seen, alone], [Pending(3, alone)])
    assert not isinstance(beside, NoMore)
    assert beside != alone


@pytest.mark.slow
def test_the_calibration_goes_out_first_and_others_beside_it() -> None:
    built = space(SPACE)
    past = _begun(built)
    sampler, pending = _twin(built), list[Pending]()
    for number in range(1, 5):
        seen = [*past.seen, *(each.assignment for each in pending)]
        proposed = sampler.propose(past, seen, pending)
        assert not isinstance(proposed, NoMore)
        pending.append(Pending(number, proposed))
    first = next(calibrations(built))
    assert [each.assignment for each in pending[:3]] == [
        {**first, "instance_group.count": count} for count in (1, 2, 4)
    ]
    assert len({key_of(each.assignment) for each in pending}) == 4


def test_pending_trials_do_not_end_the_search() -> None:
    built = space(SPACE)
    past = _begun(built)
    walk(_twin(built), past, _measure(built), 1)
    others = [each for each in built.assignments() if each not in past.seen][:6]
    pending = [Pending(number, each) for number, each in enumerate(others, 2)]
    assert not isinstance(_twin(built).propose(past, [*past.seen, *others], pending), NoMore)


@pytest.mark.slow
def test_it_ends_with_many_slots_too() -> None:
    built, notes = space(SPACE), list[str]()
    past = _begun(built)
    ended = walk_in_parallel(_twin(built, notes=notes), past, _measure(built), 30, slots=4, takes=_varied)
    assert isinstance(ended, NoMore)
    assert ended.reason.startswith("the simulator expects no candidate to gain more than 1%")
    assert notes == []


@pytest.mark.slow
def test_without_a_limit_pending_points_count_for_the_front() -> None:
    built = space(SPACE)
    past = _begun(built, SLO())
    walk_in_parallel(_twin(built, SLO()), past, _measure(built), 5, slots=3, takes=_varied)
    best = max(p.throughput.value for each in built.assignments() for p in TRUTH.trial(built, 0, each).curve)
    assert max(p.throughput.value for each in past.trials for p in each.curve) >= 0.93 * best


@pytest.mark.slow
def test_at_a_fixed_rate() -> None:
    built = space(SPACE)
    objective = Objective.quickest(Statistic.parse("p99"), 300.0)
    past = Past(built, SLO(), [TRUTH.trial(built, 0, built.baseline, 300.0)], objective)
    walk_in_parallel(
        _quickest(built), past, lambda n, each: TRUTH.trial(built, n, each, 300.0), 7, slots=3, takes=_varied
    )
    assert len({key_of(each) for each in past.seen}) == len(past.seen) >= 5


@pytest.mark.slow
def test_the_errors_of_the_simulator_are_those_of_finished_trials_in_any_order() -> None:
    built, notes = space(SPACE), list[str]()
    past = _begun(built)
    # The calibration takes longest, and what ended before it had to be predicted from the baseline alone.
    walk_in_parallel(
        _twin(built, notes=notes), past, _measure(built), 8, slots=4, takes=lambda n: 5.0 if n == 1 else 1.0
    )
    assert notes == []
    assert past.trials[1].number != 1


def test_numbers_of_trials_are_no_places() -> None:
    built = space(SPACE)
    past = _begun(built)
    walk(_twin(built), past, _measure(built), 3)
    numbers = {0: 0, 1: 4, 2: 17, 3: 9}
    renumbered = [each.model_copy(update={"number": numbers[each.number]}) for each in past.trials]
    other = Past(built, P99_40, renumbered)
    assert _twin(built).propose(past, past.seen) == _twin(built).propose(other, other.seen)


def test_tpe_sees_pending_trials_as_running() -> None:
    built = space(SPACE)
    pending = as_running(built.baseline, built)
    assert pending.state.name == "RUNNING"
    assert pending.params == built.indices(built.baseline)


@pytest.mark.slow
def test_tpe_keeps_away_from_what_is_pending() -> None:
    built = space()
    past = Past(built)
    batch = {"dynamic_batching": "on"}

    def measure(number: int, each: Assignment) -> TrialResult:
        size = each.get("max_batch_size", 1)
        assert isinstance(size, int)
        return trial(number, point(1, 100.0 * size, 10.0), parameters=each)

    walk(TpeSampler(built, 1), past, measure, 10)
    good = [each for each in built.assignments({**batch}) if each not in past.seen][:8]
    pending = [Pending(number, each) for number, each in enumerate(good, len(past.trials))]
    seen = [*past.seen, *good]
    alone = [TpeSampler(built, seed).propose(past, seen) for seed in range(20)]
    beside = [TpeSampler(built, seed).propose(past, seen, pending) for seed in range(20)]
    assert alone != beside


class TestProposals:
    ALONE = (
        "schema: 1\nparameters:\n"
        "  accelerator: {field: 'parameters[\"a\"].string_value', ladder: [off, fast, faster], try_alone: true}\n"
        "  instance_group.count: {field: 'instance_group[*].count', ladder: [1, 2, 4]}\n"
    )

    def begun(self) -> tuple[SearchSpace, Past]:
        built = space(self.ALONE)
        return built, Past(built, P99_40, [trial(0, point(), parameters=built.baseline)])

    def test_what_is_pending_is_not_proposed_again(self) -> None:
        built, past = self.begun()
        proposals, pending = Proposals(built, past, GridSampler(built)), list[Pending]()
        while not isinstance(proposed := proposals.next(pending), NoMore):
            assert proposed not in past.seen
            assert proposed not in [each.assignment for each in pending]
            pending.append(Pending(len(pending) + 1, proposed))
        # Everything but what has a value that is being launched alone.
        assert [each.assignment.get("accelerator", "off") for each in pending].count("off") == 2
        assert len(pending) == 4

    def test_nothing_is_combined_with_a_value_while_it_is_launched_alone(self) -> None:
        built, past = self.begun()
        alone = built.normalize({"accelerator": "fast"})
        both = built.normalize({"accelerator": "fast", "instance_group.count": 4})
        without = built.normalize({"instance_group.count": 4})
        proposals = Proposals(built, past, FirstThen([both], GridSampler(built)))
        assert proposals.next() == alone
        assert proposals.next([Pending(1, alone)]) == without
        past.trials.append(trial(1, point(), parameters=alone))
        assert proposals.next() == both

    def test_another_value_may_go_out_alone_beside_it(self) -> None:
        built, past = self.begun()
        fast, faster = (built.normalize({"accelerator": value}) for value in ("fast", "faster"))
        proposals = Proposals(built, past, FirstThen([fast, faster], GridSampler(built)))
        assert proposals.next() == fast
        assert proposals.next([Pending(1, fast)]) == faster

    def test_what_all_wait_for_is_told(self) -> None:
        built, past = self.begun()
        fast, faster = (built.normalize({"accelerator": value}) for value in ("fast", "faster"))
        counts = [built.normalize({"instance_group.count": count}) for count in (2, 4)]
        past.trials += [trial(number, point(), parameters=each) for number, each in enumerate(counts, 1)]
        both = [built.normalize({**each, "accelerator": "fast"}) for each in counts]
        proposals = Proposals(built, past, _Always(both[0]))
        assert proposals.next([Pending(5, fast), Pending(7, faster)]) == NoMore(
            "the candidates that are left have values that are being launched alone"
        )


class _Always:
    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment

    def propose(
        self, history: TrialHistory, seen: Collection[Assignment], pending: Sequence[Pending] = ()
    ) -> Assignment | NoMore:
        del history, seen, pending
        return self._assignment
