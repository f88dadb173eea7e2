from __future__ import annotations

import runpy
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from support import compile_simulation

from tuner.search.twin.batcher import Scenario, serve

AWAY_MS = 0.2


def run(
    *,
    fixed_ms: float = 10.0,
    item_ms: float = 0.0,
    neighbour: float = 0.0,
    instances: int = 1,
    largest: int = 1,
    preferred: tuple[int, ...] = (),
    dynamic: bool = False,
    delay_ms: float = 0.0,
    unit: int = 1,
    concurrency: int = 0,
    due_ms: NDArray[np.float64] | None = None,
    spread: float = 0.0,
    pause: tuple[float, float] = (0.0, 0.0),
    requests: int = 500,
    seed: int = 1,
) -> tuple[float, float, float, NDArray[np.float64]]:
    """Throughput, mean batch, busy instances, and latencies in ms."""
    sizes, busy = np.arange(largest + 1)[:, None], np.arange(1, instances + 1)[None]
    wanted = np.zeros(largest + 1, bool)
    wanted[list(preferred or (largest,))] = True
    latency_ms = np.empty(requests)
    scenario = Scenario(
        service_ms=(fixed_ms + item_ms * sizes) * (1 + neighbour * (busy - 1)),
        spread=spread,
        pause_share=pause[0],
        pause_ms=pause[1],
        preferred=wanted,
        dynamic=dynamic,
        delay_ms=delay_ms,
        request_size=unit,
        concurrency=concurrency,
        due_ms=np.empty(0) if due_ms is None else due_ms,
        away_ms=AWAY_MS,
        warm_up=2 * concurrency + 50,
    )
    return *serve(scenario, latency_ms, seed), latency_ms


def test_one_request_at_a_time_takes_its_service_and_its_way() -> None:
    throughput, batch, busy, latency_ms = run(concurrency=1)
    assert latency_ms == pytest.approx(10.2)
    assert throughput == pytest.approx(1e3 / 10.2, rel=0.002)
    assert (batch, busy) == pytest.approx((1.0, 10 / 10.2), rel=0.002)


def test_without_batching_instances_are_the_limit() -> None:
    throughput, batch, busy, latency_ms = run(instances=3, concurrency=12)
    assert (throughput, batch, busy) == pytest.approx((300, 1.0, 3.0), rel=0.01)
    assert latency_ms.mean() == pytest.approx(40, rel=0.01)


def test_busy_neighbours_slow_each_other() -> None:
    alone, *_ = run(instances=1, concurrency=12)
    four, *_ = run(instances=4, neighbour=0.5, concurrency=12)
    assert four / alone == pytest.approx(4 / (1 + 0.5 * 3), rel=0.01)


def test_a_large_neighbour_slows_more_than_a_small_one() -> None:
    """A request that runs alone for 0.5 ms, and then beside a batch of four that takes 50 ms by itself."""
    warm_up = 1e3 * np.arange(50)
    due_ms = np.concatenate([warm_up, [60e3], np.full(4, 60e3 + 0.5)])
    *_, latency_ms = run(
        item_ms=10.0, neighbour=1.0, instances=2, largest=4, dynamic=True, due_ms=due_ms, requests=len(due_ms) - 50
    )
    assert latency_ms[0] == pytest.approx(0.5 + (20 + 50) * (1 - 0.5 / 20) + AWAY_MS, rel=0.01)


def test_clients_that_were_answered_together_do_not_stay_together() -> None:
    """In step they would be one batch of two on one instance, and the other one idle."""
    throughput, *_ = run(fixed_ms=0.0, item_ms=10.0, instances=2, largest=4, dynamic=True, concurrency=2)
    assert throughput > 150


@pytest.mark.parametrize("concurrency", [1, 3, 8, 40, 100])
@pytest.mark.parametrize("instances", [1, 3])
@pytest.mark.parametrize("delay_ms", [0.0, 4.0])
def test_littles_law_holds_whatever_is_formed(concurrency: int, instances: int, delay_ms: float) -> None:
    throughput, _, _, latency_ms = run(
        item_ms=0.5,
        instances=instances,
        largest=16,
        dynamic=True,
        delay_ms=delay_ms,
        concurrency=concurrency,
        spread=0.1,
        requests=3_000,
    )
    assert throughput * latency_ms.mean() / 1e3 == pytest.approx(concurrency, rel=0.03)


def test_a_queue_of_poisson_arrivals_waits_as_pollaczek_and_khinchine_say() -> None:
    """M/D/1: the mean wait is load / (2 * (1 - load)) of the service time."""
    due_ms = np.cumsum(np.random.default_rng(0).exponential(20.0, 60_050))
    _, _, busy, latency_ms = run(due_ms=due_ms, requests=60_000)
    assert busy == pytest.approx(0.5, rel=0.03)
    assert latency_ms.mean() - 10 - AWAY_MS == pytest.approx(5.0, rel=0.05)


def test_a_full_load_makes_full_batches() -> None:
    throughput, batch, _, _ = run(item_ms=0.5, largest=8, dynamic=True, concurrency=64)
    assert batch == pytest.approx(8)
    assert throughput == pytest.approx(8e3 / 14, rel=0.01)


def test_a_preferred_size_goes_alone() -> None:
    _, batch, *_ = run(largest=8, preferred=(4,), dynamic=True, concurrency=32)
    assert batch == pytest.approx(4)


def test_an_idle_instance_waits_for_the_delay() -> None:
    *_, latency_ms = run(largest=8, dynamic=True, delay_ms=5.0, concurrency=1)
    assert latency_ms == pytest.approx(15.2)


def test_a_full_batch_does_not_wait() -> None:
    _, batch, _, latency_ms = run(largest=4, dynamic=True, delay_ms=50.0, concurrency=4)
    assert batch == pytest.approx(4)
    # The mean of four exponential ways is `AWAY_MS`, the last one's that times 1 + 1/2 + 1/3 + 1/4.
    assert latency_ms.mean() == pytest.approx(10 + AWAY_MS * 25 / 12, abs=0.1)


def test_requests_of_several_inferences_count_as_such() -> None:
    throughput, batch, *_ = run(item_ms=1.0, largest=8, dynamic=True, unit=4, concurrency=16)
    assert batch == pytest.approx(8)
    assert throughput == pytest.approx(8e3 / 18, rel=0.01)


def test_pauses_make_the_tail() -> None:
    *_, smooth = run(concurrency=1, requests=4_000)
    *_, held_up = run(concurrency=1, pause=(0.05, 20.0), requests=4_000)
    assert np.median(held_up) == pytest.approx(np.median(smooth), rel=0.01)
    assert np.quantile(held_up, 0.99) > 2 * np.quantile(smooth, 0.99)


def test_the_seed_decides() -> None:
    one, same, other = (run(concurrency=4, spread=0.2, seed=seed)[3] for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


def test_what_is_compiled_ahead_serves_every_scenario() -> None:
    runpy.run_path(compile_simulation.__file__, run_name="__main__")
    run(concurrency=2, spread=0.1, pause=(0.1, 1.0), dynamic=True, delay_ms=1.0)
    run(due_ms=np.arange(550.0), largest=8, unit=2)
    assert len(cast("Any", serve).signatures) == 1
