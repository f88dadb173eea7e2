from __future__ import annotations

import pytest
from support.builders import MLP, space

from tuner.config.config import ModelConfig
from tuner.space.candidate import Assignment
from tuner.space.observed import served_otherwise

SPACE = """\
schema: 1
parameters:
  dynamic_batching: {ladder: [off, on]}
  max_batch_size: {ladder: [4, 8, 16]}
  dynamic_batching.preferred_batch_size: {ladder: [off, 4, [4, 8]]}
  delay: {field: dynamic_batching.max_queue_delay_microseconds, ladder: [off, 0, 500]}
  threads: {field: 'parameters["threads"].string_value', ladder: [off, "1", "2"]}
  instance_group.count: {field: "instance_group[*].count", ladder: [1, 2]}
"""


def otherwise(wanted: Assignment, served: str, config: str = MLP) -> list[str]:
    built = space(SPACE, config)
    candidate = built.candidate(built.normalize(wanted))
    return list(map(str, served_otherwise(built, candidate, ModelConfig.parse(served, "effective"))))


BATCHING: Assignment = {"dynamic_batching": "on", "max_batch_size": 8}


@pytest.mark.parametrize(
    ("wanted", "served"),
    [
        ({}, MLP),
        (BATCHING, MLP.replace("32", "8") + "dynamic_batching { preferred_batch_size: [ 8 ] }"),
        ({**BATCHING, "delay": 0}, MLP.replace("32", "8") + "dynamic_batching { preferred_batch_size: [ 8 ] }"),
        (
            {**BATCHING, "max_batch_size": 16, "dynamic_batching.preferred_batch_size": (4, 8)},
            MLP.replace("32", "16") + "dynamic_batching { preferred_batch_size: [ 4, 8 ] }",
        ),
        (
            {**BATCHING, "max_batch_size": 16, "dynamic_batching.preferred_batch_size": 4},
            MLP.replace("32", "16") + "dynamic_batching { preferred_batch_size: [ 4 ] }",
        ),
        # What is left out has the value that Triton gives it.
        ({}, MLP + 'parameters { key: "threads" value { string_value: "0" } }'),
        # Without dynamic batching the limit is nobody's wish.
        ({"max_batch_size": 4}, MLP.replace("32", "64")),
    ],
)
def test_what_was_asked_for(wanted: Assignment, served: str) -> None:
    assert otherwise(wanted, served) == []


@pytest.mark.parametrize(
    ("wanted", "served", "told"),
    [
        ({}, MLP + "dynamic_batching { }", ["dynamic_batching is on, but off was requested"]),
        (BATCHING, MLP.replace("32", "8"), ["dynamic_batching is off, but on was requested"]),
        (
            BATCHING,
            MLP.replace("32", "16") + "dynamic_batching { }",
            ["max_batch_size is 16, but 8 was requested"],
        ),
        ({"threads": "2"}, MLP, ["threads is off, but 2 was requested"]),
        ({"instance_group.count": 2}, MLP, ["instance_group.count is 1, but 2 was requested"]),
    ],
)
def test_what_was_not(wanted: Assignment, served: str, told: list[str]) -> None:
    assert otherwise(wanted, served) == told


def test_a_list_of_one_is_that_one() -> None:
    built = space(SPACE.replace("[off, 4, [4, 8]]", "[off, [4], [4, 8]]"))
    preferred = "dynamic_batching.preferred_batch_size"
    candidate = built.candidate(built.normalize({**BATCHING, "max_batch_size": 16, preferred: (4,)}))
    assert candidate.parameters[preferred] == (4,)
    config = MLP.replace("32", "16") + "dynamic_batching { preferred_batch_size: [ SIZE ] }"
    assert served_otherwise(built, candidate, ModelConfig.parse(config.replace("SIZE", "4"), "effective")) == ()
    assert served_otherwise(built, candidate, ModelConfig.parse(config.replace("SIZE", "8"), "effective")) != ()


def test_a_field_that_the_schema_here_does_not_know_cannot_be_seen() -> None:
    config = MLP + "new_field: 1\n"
    built = space("schema: 1\nparameters: {new_field: {ladder: [1, 2]}}", config, MLP + "new_field: 1\n")
    candidate = built.candidate(built.normalize({"new_field": 2}))
    assert served_otherwise(built, candidate, ModelConfig.parse(MLP, "effective")) == ()
