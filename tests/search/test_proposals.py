from __future__ import annotations

from pathlib import Path

from support.builders import identity, point, space, trial

from tuner.search.proposals import Proposals, first_candidates
from tuner.search.samplers import RandomSampler
from tuner.search.study import Study
from tuner.space.space import SearchSpace


def _words(built: SearchSpace) -> list[str]:
    return [str(built.candidate(assignment)) for assignment in first_candidates(built)]


def test_the_guides_walk_comes_first() -> None:
    assert _words(space()) == [
        "dynamic_batching, max_batch_size 32, instance_group.count 1",
        "no dynamic_batching, instance_group.count 2",
        "dynamic_batching, max_batch_size 32, instance_group.count 2",
        "dynamic_batching, max_batch_size 64, instance_group.count 2",
    ]


def test_a_model_that_cannot_batch_only_gets_instances() -> None:
    built = space(config="max_batch_size: 0 instance_group [ { kind: KIND_CPU count: 1 } ]")
    assert set(_words(built)) == {"instance_group.count 2"}


def test_a_space_without_the_usual_fields() -> None:
    built = space("schema: 1\nparameters: {'parameters[\"THREADS\"].string_value': {ladder: [off, '1', '2']}}")
    assert _words(built) == []


def test_each_is_proposed_once_until_none_is_left(tmp_path: Path) -> None:
    built = space("schema: 1\nparameters: {dynamic_batching: {ladder: [off, on]}, max_batch_size: {ladder: [8, 64]}}")
    study = Study.create_or_resume(tmp_path / "study.db", identity())
    study.add(trial(0, point(), parameters=built.baseline), built)
    proposals = Proposals(built, study, RandomSampler(built, seed=0))
    proposed = []
    while (assignment := proposals.next()) is not None:
        proposed.append(assignment)
        study.add(trial(len(study.trials), point(), parameters=assignment), built)
    assert [a["max_batch_size"] for a in proposed] == [32, 64, 8]


def test_what_is_skipped_is_proposed_no_more(tmp_path: Path) -> None:
    built = space("schema: 1\nparameters: {dynamic_batching: {ladder: [off, on]}, max_batch_size: {ladder: [8, 64]}}")
    study = Study.create_or_resume(tmp_path / "study.db", identity())
    study.add(trial(0, point(), parameters=built.baseline), built)
    proposals = Proposals(built, study, RandomSampler(built, seed=0))
    proposed = []
    while (assignment := proposals.next()) is not None:
        assert proposals.next() is not None
        proposed.append(assignment)
        proposals.skip(assignment)
    assert proposals.skipped == proposed
    everything = [*built.assignments()]
    assert len(proposed) == len(everything) - 1
    assert all(each in everything for each in proposed)
