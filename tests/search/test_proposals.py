from __future__ import annotations

from pathlib import Path

from support.builders import identity, point, space, trial

from tuner.search.choose_sampler import first_candidates
from tuner.search.proposals import Proposals
from tuner.search.samplers import FirstThen, NoMore, RandomSampler
from tuner.study.study import Study


def test_each_is_proposed_once_until_none_is_left(tmp_path: Path) -> None:
    built = space("schema: 1\nparameters: {dynamic_batching: {ladder: [off, on]}, max_batch_size: {ladder: [8, 64]}}")
    study = Study.create_or_resume(tmp_path / "study.db", identity())
    study.add(trial(0, point(), parameters=built.baseline), built)
    proposals = Proposals(built, study, FirstThen(first_candidates(built), RandomSampler(built, seed=0)))
    proposed = []
    while not isinstance(assignment := proposals.next(), NoMore):
        proposed.append(assignment)
        study.add(trial(len(study.trials), point(), parameters=assignment), built)
    assert [a["max_batch_size"] for a in proposed] == [32, 64, 8]


def test_what_is_skipped_is_proposed_no_more(tmp_path: Path) -> None:
    built = space("schema: 1\nparameters: {dynamic_batching: {ladder: [off, on]}, max_batch_size: {ladder: [8, 64]}}")
    study = Study.create_or_resume(tmp_path / "study.db", identity())
    study.add(trial(0, point(), parameters=built.baseline), built)
    proposals = Proposals(built, study, FirstThen(first_candidates(built), RandomSampler(built, seed=0)))
    proposed = []
    while not isinstance(assignment := proposals.next(), NoMore):
        assert proposals.next() == assignment
        proposed.append(assignment)
        proposals.skip(assignment)
    assert proposals.skipped == proposed
    everything = [*built.assignments()]
    assert len(proposed) == len(everything) - 1
    assert all(each in everything for each in proposed)


def test_a_value_that_the_server_may_lack_is_proposed_alone_first(tmp_path: Path) -> None:
    built = space(
        "schema: 1\nparameters:\n"
        "  accelerator: {field: 'parameters[\"a\"].string_value', ladder: [off, fast], try_alone: true}\n"
        "  instance_group.count: {field: 'instance_group[*].count', ladder: [1, 2, 4]}\n"
    )
    study = Study.create_or_resume(tmp_path / "study.db", identity())
    study.add(trial(0, point(), parameters=built.baseline), built)
    alone = built.normalize({"accelerator": "fast"})
    both = built.normalize({"accelerator": "fast", "instance_group.count": 4})
    proposals = Proposals(built, study, FirstThen([both], RandomSampler(built, seed=0)))
    assert proposals.next() == alone
    proposals.skip(alone)
    assert proposals.next() == both
