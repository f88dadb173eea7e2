from __future__ import annotations

from support.builders import MLP, space

from tuner.search.twin_sampler import calibrations
from tuner.space.candidate import in_words
from tuner.space.space import SearchSpace


def words(built: SearchSpace) -> list[str]:
    return [in_words(assignment, built.baseline) for assignment in calibrations(built)]


def test_the_largest_batches_with_the_fewest_instances_and_twice_as_many() -> None:
    assert words(space()) == [
        "dynamic_batching, max_batch_size 128, instance_group.count 1",
        "dynamic_batching, max_batch_size 128, instance_group.count 2",
    ]


def test_without_batches_only_the_instances() -> None:
    built = space(config="max_batch_size: 0 instance_group [ { kind: KIND_CPU count: 1 } ]")
    assert words(built) == ["instance_group.count 2"]


def test_what_the_model_is_already_needs_no_launch() -> None:
    text = "schema: 1\nparameters: {max_batch_size: {ladder: [8, 32]}}"
    assert words(space(text, MLP + "dynamic_batching {}")) == []


def test_a_space_of_other_fields() -> None:
    assert words(space("schema: 1\nparameters: {'parameters[\"T\"].string_value': {ladder: [off, '1']}}")) == []
