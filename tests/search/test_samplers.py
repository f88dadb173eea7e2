from __future__ import annotations

import pytest
from optuna.trial import FrozenTrial
from support.builders import point, space, trial

from tuner.errors import Cause
from tuner.search.objectives import as_optuna_trial
from tuner.search.samplers import RandomSampler, Sampler, TpeSampler
from tuner.slo import SLO
from tuner.space.candidate import Assignment
from tuner.space.space import SearchSpace
from tuner.space.spec import ON

SMALL = "schema: 1\nparameters: {dynamic_batching: {ladder: [off, on]}, max_batch_size: {ladder: [8, 16]}}"


def _walk(sampler: Sampler, built: SearchSpace, steps: int) -> list[Assignment]:
    """Propose, measure and tell: batching is good, and better with large batches; two instances never load."""
    seen: list[Assignment] = []
    told: list[FrozenTrial] = []
    for number in range(steps):
        assignment = sampler.propose(told, seen)
        if assignment is None:
            break
        seen.append(assignment)
        batch = assignment.get("max_batch_size", 1)
        assert isinstance(batch, int)
        if assignment.get("instance_group.count") == 2:
            result = trial(number, parameters=assignment, failure=Cause.CRASHED)
        else:
            result = trial(number, point(1, 100.0 * batch, 10.0), parameters=assignment)
        told.append(as_optuna_trial(result, built, SLO(), {}))
    return seen


@pytest.mark.parametrize("kind", [RandomSampler, TpeSampler])
class TestAnySampler:
    def test_proposes_each_candidate_once_and_then_none(self, kind: type[RandomSampler | TpeSampler]) -> None:
        built = space(SMALL)
        seen = _walk(kind(built, seed=1), built, 10)
        assert sorted(map(str, seen)) == sorted(map(str, built.assignments()))

    def test_the_seed_decides(self, kind: type[RandomSampler | TpeSampler]) -> None:
        built = space()
        one, same, other = (_walk(kind(built, seed=seed), built, 12) for seed in (1, 1, 2))
        assert one == same != other


def test_a_resumed_tpe_proposes_what_it_would_have() -> None:
    built = space()
    seen = _walk(TpeSampler(built, seed=3), built, 12)
    told = [
        as_optuna_trial(trial(n, point(1, 100.0 + n, 10.0), parameters=a), built, SLO(), {}) for n, a in enumerate(seen)
    ]
    assert TpeSampler(built, seed=3).propose(told, seen) == TpeSampler(built, seed=3).propose(told, seen)


def test_tpe_learns_where_it_is_good() -> None:
    built = space()
    late = _walk(TpeSampler(built, seed=0), built, 40)[20:]
    assert sum(assignment["dynamic_batching"] == ON for assignment in late) >= 15
    assert sum(assignment["instance_group.count"] == 2 for assignment in late) <= 5


def test_random_search_in_a_space_too_large_to_list() -> None:
    sizes = ", ".join(map(str, range(2, 400)))
    delays = ", ".join(map(str, range(1, 400)))
    built = space(
        "schema: 1\nparameters:\n  dynamic_batching: {ladder: [off, on]}\n"
        f"  max_batch_size: {{ladder: [{sizes}]}}\n"
        f"  dynamic_batching.max_queue_delay_microseconds: {{ladder: [{delays}]}}\n"
    )
    assert built.size() > 100_000
    seen = _walk(RandomSampler(built, seed=0), built, 20)
    assert len({str(assignment) for assignment in seen}) == 20
