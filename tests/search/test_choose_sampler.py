from __future__ import annotations

import pytest
from support.builders import space

from tuner.core.objectives import Objective
from tuner.core.slo import SLO, Statistic
from tuner.search.choose_sampler import choose_sampler, first_candidates
from tuner.search.goal import Goal
from tuner.search.samplers import FirstThen
from tuner.search.twin_sampler import TwinSampler
from tuner.space.candidate import in_words
from tuner.space.space import SearchSpace


def _words(built: SearchSpace) -> list[str]:
    return [in_words(assignment, built.baseline) for assignment in first_candidates(built)]


def test_the_guides_walk_comes_first() -> None:
    assert _words(space()) == [
        "dynamic_batching, max_batch_size 32, instance_group.count 1",
        "instance_group.count 2",
        "dynamic_batching, max_batch_size 32, instance_group.count 2",
        "dynamic_batching, max_batch_size 64, instance_group.count 2",
    ]


def test_a_model_that_cannot_batch_only_gets_instances() -> None:
    built = space(config="max_batch_size: 0 instance_group [ { kind: KIND_CPU count: 1 } ]")
    assert set(_words(built)) == {"instance_group.count 2"}


def test_a_space_without_the_usual_fields() -> None:
    built = space("schema: 1\nparameters: {'parameters[\"THREADS\"].string_value': {ladder: [off, '1', '2']}}")
    assert _words(built) == []


def test_what_the_simulator_does_not_predict_is_left_to_tpe() -> None:
    notes: list[str] = []
    goal = Goal(SLO(), 1, 8, None, Objective(metric="inferences_per_joule"))
    assert isinstance(choose_sampler("twin", space(), 0, goal, notes.append), FirstThen)
    assert notes == ["the simulator does not predict inferences per joule; using the tpe sampler"]


@pytest.mark.parametrize(
    "objective",
    [Objective(metric="throughput_per_gpu"), Objective.quickest(Statistic.parse("p95"), 10)],
    ids=["throughput per GPU", "latency at a rate"],
)
def test_what_the_simulator_predicts(objective: Objective) -> None:
    goal = Goal(SLO(), 1, 8, None, objective)
    assert isinstance(choose_sampler("twin", space(), 0, goal, lambda _: None), TwinSampler)
