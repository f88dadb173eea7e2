from __future__ import annotations

import pytest

from tuner.config.config import ModelConfig
from tuner.config.instances import instance_count


@pytest.mark.parametrize(
    ("groups", "count"),
    [
        ("{ kind: KIND_CPU count: 2 }", 2),
        ("{ kind: KIND_GPU count: 2 gpus: [ 0, 1, 3 ] }", 6),
        ("{ kind: KIND_GPU count: 1 gpus: 0 }, { kind: KIND_GPU count: 3 gpus: 1 }", 4),
        ("{ kind: KIND_MODEL count: 1 }", 1),
        ("{ kind: KIND_CPU count: 1 }, { kind: KIND_CPU count: 5 passive: true }", 1),
        ("", 0),
    ],
)
def test_each_group_has_its_count_on_each_of_its_gpus(groups: str, count: int) -> None:
    config = ModelConfig.parse(f"instance_group [ {groups} ]" if groups else 'platform: "ensemble"', "config.pbtxt")
    assert instance_count(config.proto) == count
