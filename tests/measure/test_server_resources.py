from __future__ import annotations

import pytest

from tuner.measure.sampling import Sample
from tuner.measure.server_resources import ServerResources, resources, resources_together
from tuner.servers.usage import ServerUsage


def sample(at_s: float, cpu_s: float, memory_bytes: int) -> Sample[ServerUsage]:
    return Sample(round(at_s * 1e9), ServerUsage(cpu_s, memory_bytes))


def test_processors_are_a_difference_and_memory_is_a_peak() -> None:
    taken = resources([sample(10, 5.0, 100), sample(10.5, 5.6, 300), sample(11, 6.5, 200)])
    assert taken is not None
    assert taken.cpu_cores == pytest.approx(1.5)
    assert taken.memory_bytes == 300


def test_a_process_that_ends_takes_its_seconds_with_it() -> None:
    taken = resources([sample(10, 5.0, 100), sample(11, 2.0, 50)])
    assert taken is not None
    assert taken.cpu_cores == 0


def test_one_sample_says_nothing() -> None:
    assert resources([sample(1, 1, 1)]) is None
    assert resources([]) is None


def test_rounds_together() -> None:
    one, two = ServerResources(cpu_cores=1, memory_bytes=5), ServerResources(cpu_cores=2, memory_bytes=3)
    assert resources_together([one, None, two]) == ServerResources(cpu_cores=1.5, memory_bytes=5)
    assert resources_together([None]) is None
