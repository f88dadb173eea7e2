from __future__ import annotations

from typing import Any

import pytest

from tuner.servers.docker.container_options import ContainerOptions


@pytest.mark.parametrize(
    ("more", "cores"),
    [
        ({}, 8),
        ({"nano_cpus": 2_500_000_000}, 2),
        ({"nano_cpus": 100_000_000}, 1),
        ({"cpu_quota": 300_000}, 3),
        ({"cpu_quota": 50_000, "cpu_period": 10_000}, 5),
        ({"cpu_quota": -1}, 8),
        ({"cpuset_cpus": "0-2,6"}, 4),
        ({"cpuset_cpus": "5"}, 1),
        ({"cpuset_cpus": "0-63"}, 8),
        ({"cpuset_cpus": "0-3", "nano_cpus": 2_000_000_000}, 2),
        ({"cpuset_cpus": "all"}, 8),
    ],
)
def test_how_many_processors_a_container_may_use(more: dict[str, Any], cores: int) -> None:
    assert ContainerOptions(more=more).cores(8) == cores
