from __future__ import annotations

from support.builders import space

from tuner.search.choose_sampler import first_candidates
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
