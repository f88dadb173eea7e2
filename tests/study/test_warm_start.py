from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.builders import MLP, SMALL_SPACE, identity, point, space, trial
from support.histories import Past

from tuner.config.patch import Patch
from tuner.core.errors import JobError
from tuner.search.samplers import FirstThen, GridSampler
from tuner.space.candidate import Assignment
from tuner.space.space import SearchSpace
from tuner.space.spec import parse_space
from tuner.study.study import Study
from tuner.study.warm_start import WarmStart

BATCHES: Assignment = {"dynamic_batching": "on", "max_batch_size": 64}
INSTANCES: Assignment = {"instance_group.count": 2}


def earlier(folder: Path, **changes: Any) -> Path:
    """A run that measured the baseline, batches and instances; batches are best."""
    built = space(SMALL_SPACE, changes.get("config", MLP))
    spec = parse_space(SMALL_SPACE, "test.yaml").model_dump_json(by_alias=True)
    study = Study.create_or_resume(folder / "study.db", identity(space=spec, **changes))
    known: list[tuple[Assignment, float]] = [({}, 100.0), (BATCHES, 900.0), (INSTANCES, 300.0)]
    for number, (wanted, throughput) in enumerate(known):
        assignment = built.normalize(wanted)
        config = built.candidate(assignment).config.text
        study.add(trial(number, point(1, throughput, 10.0), parameters=assignment, config=config), built)
    return folder


@pytest.fixture
def built() -> SearchSpace:
    return space(SMALL_SPACE)


def test_under_the_same_conditions_its_trials_count(tmp_path: Path, built: SearchSpace) -> None:
    known = WarmStart.of(earlier(tmp_path), identity(), built)
    assert [each.parameters for each in known.trials] == [built.normalize(BATCHES), built.normalize(INSTANCES)]
    assert all(each.imported and each.wall_s == 0 for each in known.trials)
    assert (known.first, known.differs) == ((), "")


@pytest.mark.parametrize("change", [{"server": "tritonserver 2.60.0"}, {"driver": "560.35.03"}, {"files": "other"}])
def test_under_other_conditions_its_best_is_launched_first(
    tmp_path: Path, built: SearchSpace, change: dict[str, str]
) -> None:
    known = WarmStart.of(earlier(tmp_path), identity(**change), built)
    assert known.trials == ()
    assert known.differs in change
    assert known.first == (built.normalize(BATCHES),)


def test_what_was_the_baseline_then_is_a_candidate_now(tmp_path: Path) -> None:
    ours = MLP.replace("max_batch_size: 32", "max_batch_size: 64") + "dynamic_batching {}"
    built = space(SMALL_SPACE, ours)
    known = WarmStart.of(earlier(tmp_path), identity(config=ours), built)
    # Its batches are our baseline, which is measured anew; its own was without.
    assert built.normalize({"dynamic_batching": "off"}) not in [each.parameters for each in known.trials]
    assert built.baseline not in [each.parameters for each in known.trials]


def test_a_run_of_another_model_tells_nothing(tmp_path: Path, built: SearchSpace) -> None:
    assert WarmStart.of(earlier(tmp_path), identity(model="other"), built) == WarmStart()


def test_a_folder_without_a_run_is_an_error(tmp_path: Path, built: SearchSpace) -> None:
    with pytest.raises(JobError, match="not a run folder"):
        WarmStart.of(tmp_path, identity(), built)


def test_first_some_and_then_the_rest(built: SearchSpace) -> None:
    first = [built.normalize(INSTANCES), built.normalize(BATCHES)]
    sampler, past, seen = FirstThen(first, GridSampler(built)), Past(built), [built.baseline]
    for _ in range(3):
        proposed = sampler.propose(past, seen)
        assert isinstance(proposed, dict)
        seen.append(proposed)
    assert seen[1:3] == first
    assert seen[3] not in first


def test_a_space_with_more_places_takes_over_what_changes_none_of_them(tmp_path: Path) -> None:
    more = SMALL_SPACE + "  threads: {env: OMP_NUM_THREADS, ladder: [off, 1]}\n"
    built = space(more)
    own = Patch(env={"OMP_NUM_THREADS": None})
    here = replace(built, originals=own)
    known = WarmStart.of(earlier(tmp_path), identity(), here)
    assert [each.parameters for each in known.trials] == [here.normalize(BATCHES), here.normalize(INSTANCES)]
