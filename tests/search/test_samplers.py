from __future__ import annotations

import sys
from typing import get_args

import pytest
from support.builders import point, space, trial
from support.histories import Past, walk

from tuner.core.errors import Cause, JobError
from tuner.measure.trial import TrialResult
from tuner.options.tune_job import SamplerName
from tuner.search.choose_sampler import check_installed
from tuner.search.samplers import ALL_SEEN, GridSampler, RandomSampler, Sampler, TpeSampler
from tuner.space.candidate import Assignment
from tuner.space.space import SearchSpace
from tuner.space.spec import ON

SMALL = "schema: 1\nparameters: {dynamic_batching: {ladder: [off, on]}, max_batch_size: {ladder: [8, 16]}}"


def _measure(number: int, assignment: Assignment) -> TrialResult:
    """Batching is good, and better with large batches; two instances never load."""
    batch = assignment.get("max_batch_size", 1)
    assert isinstance(batch, int)
    if assignment.get("instance_group.count") == 2:
        return trial(number, parameters=assignment, failure=Cause.CRASHED)
    return trial(number, point(1, 100.0 * batch, 10.0), parameters=assignment)


def _walk(sampler: Sampler, built: SearchSpace, steps: int) -> list[Assignment]:
    past = Past(built)
    walk(sampler, past, _measure, steps)
    return past.seen


@pytest.mark.parametrize("kind", [RandomSampler, TpeSampler])
class TestAnySampler:
    def test_proposes_each_candidate_once_and_then_none(self, kind: type[RandomSampler | TpeSampler]) -> None:
        built = space(SMALL)
        seen = _walk(kind(built, seed=1), built, 10)
        assert sorted(map(str, seen)) == sorted(map(str, built.assignments()))

    @pytest.mark.slow
    def test_the_seed_decides(self, kind: type[RandomSampler | TpeSampler]) -> None:
        built = space()
        one, same, other = (_walk(kind(built, seed=seed), built, 12) for seed in (1, 1, 2))
        assert one == same != other


def test_a_resumed_tpe_proposes_what_it_would_have() -> None:
    built = space()
    past = Past(built)
    walk(TpeSampler(built, seed=3), past, _measure, 12)
    assert TpeSampler(built, seed=3).propose(past, past.seen) == TpeSampler(built, seed=3).propose(past, past.seen)


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


def test_a_grid_is_every_candidate_in_order() -> None:
    built = space(SMALL)
    past = Past(built)
    assert walk(GridSampler(built), past, _measure, 10) == ALL_SEEN
    assert past.seen == list(built.assignments())


def test_a_gaussian_process_wants_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(JobError, match=r"^--sampler gp: PyTorch is not installed: pip install 'tritontune\[gp\]'$"):
        check_installed("gp")


def test_no_other_sampler_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in get_args(SamplerName):
        if name != "gp":
            check_installed(name)
