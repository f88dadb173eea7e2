from __future__ import annotations

import numpy as np
import pytest

from tuner.search.twin.demand import DeviceDemand, Work


def works(setting: int = 0, factor: float = 1.0, instances: int = 1) -> list[Work]:
    """Executions that take 2 ms and 0.5 ms for each inference on 4 devices, all of which they keep busy."""
    return [Work(setting, size, instances, factor * (2 + 0.5 * size), 4.0) for size in (1.0, 2.0, 6.5, 16.0)]


def test_executions_share_what_there_is() -> None:
    least_ms = DeviceDemand(works(), 4).least_ms(0, 16, 8)
    assert least_ms.shape == (17, 8)
    assert least_ms[16, [0, 3, 7]] == pytest.approx([10 / 4, 10, 20], rel=0.01)
    assert DeviceDemand(works(), 4).most_per_s(0, 16) == pytest.approx(16 / 10 * 4 * 1e3, rel=0.01)


def test_a_setting_may_take_more_than_another() -> None:
    demand = DeviceDemand([*works(), *works(setting=1, factor=2.0)], 4)
    of_each = [demand.most_per_s(setting, 16) for setting in (0, 1, 2)]
    assert of_each[1] < of_each[2] < of_each[0]
    assert of_each[0] / of_each[1] == pytest.approx(2, rel=0.2)


def test_busy_devices_and_many_instances_tell_most() -> None:
    spinning = [Work(0, 1.0, 1, 20.0, 0.4), Work(0, 16.0, 1, 80.0, 0.4)]
    assert DeviceDemand([*spinning, *works(instances=2)], 4).most_per_s(0, 16) == pytest.approx(6_400, rel=0.05)


def test_how_far_levels_lie_apart() -> None:
    assert DeviceDemand(works(), 4).spread == pytest.approx(0.05)
    apart = [*works(factor=0.8), *works(factor=1.25)]
    assert DeviceDemand(apart, 4).spread == pytest.approx(np.log(1.25), rel=0.1)
