from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from tuner.search.twin.service import Execution, ServiceTimes, pooled


def executions(
    sizes: tuple[int, ...], busy: tuple[int, ...], *, setting: int = 0, factor: float = 1.0
) -> list[Execution]:
    return [Execution(setting, b, k, b, factor * _alone_ms(b) * (1 + 0.4 * (k - 1)), 500) for b in sizes for k in busy]


def _alone_ms(size: int) -> float:
    return 5 + 0.2 * size


def test_what_lies_between_what_was_measured_follows() -> None:
    table = ServiceTimes(executions((1, 4, 16, 64), (1, 4))).table_ms(0, 64, 4)
    for size, k in itertools.product((1, 2, 8, 32, 64), (1, 2, 3, 4)):
        assert table[size, k - 1] == pytest.approx((5 + 0.2 * size) * (1 + 0.4 * (k - 1)), rel=0.08)


def test_who_ran_beside_large_batches_is_not_slow_beside_small_ones() -> None:
    beside = [Execution(0, b, 2, 64, _alone_ms(b) + 0.9 * _alone_ms(64), 500) for b in (1, 2, 4, 64)]
    table = ServiceTimes(executions((1, 4, 16, 64), (1,)) + beside).table_ms(0, 64, 2)
    assert beside[0].service_ms > 4 * _alone_ms(1)
    assert table[1, 1] == pytest.approx(1.9 * _alone_ms(1), rel=0.25)


def test_little_is_enough_for_a_guess() -> None:
    table = ServiceTimes(executions((1,), (1,))).table_ms(0, 32, 4)
    assert table[1, 0] == pytest.approx(5.2, rel=0.05)
    assert table[32, 0] > table[1, 0]
    assert table[1, 3] > table[1, 0]


def test_larger_batches_and_more_neighbours_never_take_less() -> None:
    noise = np.random.default_rng(0)
    seen = [
        replace(e, service_ms=e.service_ms * float(np.exp(noise.normal(0, 0.3))))
        for e in executions((1, 2, 4, 8), (1, 2, 3))
    ]
    table = ServiceTimes(seen).table_ms(0, 16, 3)
    assert (np.diff(table, axis=0) >= 0).all()
    assert (np.diff(table, axis=1) >= 0).all()


def test_what_a_setting_does_is_learnt_apart() -> None:
    quick = executions((1, 8), (1, 2), setting=1, factor=0.5)
    times = ServiceTimes(executions((1, 8, 32), (1, 2)) + quick)
    assert times.table_ms(1, 8, 1)[8, 0] == pytest.approx(0.5 * 6.6, rel=0.15)
    assert times.table_ms(0, 8, 1)[8, 0] == pytest.approx(6.6, rel=0.15)


def test_sizes_near_each_other_are_one() -> None:
    (together,) = pooled([Execution(0, 31, 1.0, 32.0, 10.0, 10), Execution(0, 32, 1.0, 32.0, 12.0, 30)])
    assert together == Execution(0, 31.75, 1.0, 32.0, 11.5, 40)
