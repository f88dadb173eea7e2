from __future__ import annotations

import pytest

from tuner.space.candidate import Assignment, in_words


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({}, "the config as it is"),
        ({"dynamic_batching": "off", "instance_group.count": 2}, "no dynamic_batching, instance_group.count 2"),
        (
            {"dynamic_batching": "on", "max_batch_size": 64, "dynamic_batching.preferred_batch_size": "off"},
            "dynamic_batching, max_batch_size 64",
        ),
        ({"dynamic_batching.preferred_batch_size": (4, 8)}, "preferred_batch_size [4, 8]"),
        ({"instance_group.count": "as is"}, "instance_group.count as is"),
    ],
)
def test_a_candidate_in_words(parameters: Assignment, words: str) -> None:
    assert in_words(parameters) == words
