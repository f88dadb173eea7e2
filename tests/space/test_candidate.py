from __future__ import annotations

import pytest

from tuner.space.candidate import Assignment, in_words

BASELINE: Assignment = {
    "dynamic_batching": "on",
    "dynamic_batching.preferred_batch_size": "off",
    "dynamic_batching.default_queue_policy": "on",
    "graph": "off",
    "threads": "off",
}


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({}, "the baseline"),
        ({"dynamic_batching": "off", "instance_group.count": 2}, "no dynamic_batching, instance_group.count 2"),
        ({"dynamic_batching": "off", "graph": "off", "threads": "2"}, "no dynamic_batching, threads 2"),
        (
            {"dynamic_batching": "on", "dynamic_batching.default_queue_policy": "off"},
            "dynamic_batching, no default_queue_policy",
        ),
        (
            {"dynamic_batching": "on", "max_batch_size": 64, "dynamic_batching.preferred_batch_size": "off"},
            "dynamic_batching, max_batch_size 64",
        ),
        ({"dynamic_batching.preferred_batch_size": (4, 8)}, "preferred_batch_size [4, 8]"),
        ({"optimization.cuda.graphs": True}, "optimization.cuda.graphs true"),
        ({"instance_group.count": "as is"}, "instance_group.count as is"),
    ],
)
def test_a_candidate_in_words(parameters: Assignment, words: str) -> None:
    assert in_words(parameters, BASELINE) == words


def test_what_the_config_as_it_is_does_not_have_either_is_worth_no_word() -> None:
    assert in_words({"dynamic_batching": "off", "graph": "off"}, {"dynamic_batching": "off"}) == "the baseline"
