"""An open loop against the same server that does not exist: what is due arrives, however much waits already."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from support.closed_loop import BETWEEN_MATES_MS, Batcher, until

from tuner.core.loads import OpenLoop
from tuner.load.arrivals import arrivals
from tuner.load.protocols import Samples


def open_completions(
    batcher: Batcher, due_ms: Iterator[float], rng: np.random.Generator
) -> Iterator[tuple[float, float]]:
    """When each request was due and done, in ms, in the order in which they are done."""
    now, next_ms, serve = 0.0, next(due_ms, None), batcher.serving(rng)
    while next_ms is not None:
        now = max(now, next_ms)
        batch: list[float] = []
        while next_ms is not None and next_ms <= now and len(batch) < batcher.largest:
            batch.append(next_ms)
            next_ms = next(due_ms, None)
        now = serve(now, len(batch))
        for place, due in enumerate(batch):
            yield due, now + place * BETWEEN_MATES_MS
        now += (len(batch) - 1) * BETWEEN_MATES_MS


def requests_of(batcher: Batcher, load: OpenLoop, rng: np.random.Generator) -> Iterator[tuple[float, float]]:
    """A load's requests, with arrivals that the generator's next number is the seed of."""
    due_ms = (due_ns / 1e6 for due_ns in arrivals(load, int(rng.integers(1 << 32))))
    return open_completions(batcher, due_ms, rng)


def run_open(batcher: Batcher, load: OpenLoop, wall_s: float, rng: np.random.Generator) -> Samples:
    """What a load of so many seconds would have given."""
    return until(requests_of(batcher, load, rng), wall_s)
