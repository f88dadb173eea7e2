from __future__ import annotations

import numpy as np
import pytest
from support.closed_loop import Batcher, run
from support.open_loop import run_open

from tuner.core.loads import Concurrency, Load, RequestRate
from tuner.measure.level import is_catching_up, is_still

STOP = Batcher(0.5, largest=1, stop_ms=(1_000, 2_000))


def looks(batcher: Batcher, load: Load, wall_s: float) -> tuple[bool, bool]:
    """Whether it is still, and whether it is catching up."""
    rng = np.random.default_rng(0)
    samples = (
        run(batcher, load.requests, wall_s, rng)
        if isinstance(load, Concurrency)
        else run_open(batcher, load, wall_s, rng)
    )
    return is_still(samples, load), is_catching_up(samples, load)


@pytest.mark.parametrize("load", [Concurrency(4), RequestRate(500)])
def test_a_stop_is_seen_while_it_lasts(load: Load) -> None:
    assert looks(STOP, load, 0.9) == (False, False)
    assert looks(STOP, load, 1.5)[0]


def test_a_closed_loop_has_nothing_to_catch_up_with() -> None:
    assert looks(STOP, Concurrency(4), 2.01) == (False, False)


@pytest.mark.parametrize(("wall_s", "catching_up"), [(2.01, True), (2.1, True), (2.4, False), (3.0, False)])
def test_an_open_loop_catches_up_after_a_stop(wall_s: float, *, catching_up: bool) -> None:
    assert looks(STOP, RequestRate(500), wall_s) == (False, catching_up)


@pytest.mark.parametrize("wall_s", [1.0, 2.0, 3.0])
@pytest.mark.parametrize(
    ("batcher", "per_s"),
    [
        (Batcher(4.0, largest=1), 300.0),
        (Batcher(4.0, largest=1), 2_000.0),
        (Batcher(1.0, spread=0.5, largest=1), 900.0),
        (Batcher(40.0, spread=0.3), 300.0),
        (Batcher(1.0, largest=1), 5.0),
        (Batcher(10.0, largest=1), 20.0),
    ],
)
def test_neither_is_seen_in_what_goes_on_evenly_or_is_just_too_much(
    batcher: Batcher, per_s: float, wall_s: float
) -> None:
    assert looks(batcher, RequestRate(per_s), wall_s) == (False, False)
