"""A closed loop against a server that does not exist: known truth for the statistics, in no time."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from tuner.load.protocols import Samples

BETWEEN_MATES_MS = 0.02

Serve = Callable[[float, int], float]
"""When a batch ends that begins at a time, with so many requests; both in ms."""


@dataclass(frozen=True)
class Batcher:
    """One instance that serves what waits, up to `largest` requests at once.

    Attributes:
        fixed_ms: Time of a batch of any size.
        item_ms: Time that each request adds.
        spread: The coefficient of variation of a batch's time, gamma distributed.
        largest: The largest batch.
        client_ms: Time between an answer and the client's next request, up to half more or less.
        stop_ms: No batch ends between these two times; one that would ends at the second.
        warm_up: A batch's time is multiplied by this at first, and ever less in the `warm_up_ms` from then.
        drift: So much slower each second, as a share.
        slow: The share of batches that take `slow_factor` times as long.
        slow_factor: See `slow`.
        noise: The standard deviation of the logarithm of its speed, which wanders: an Ornstein-Uhlenbeck process.
        noise_ms: How long it remembers where it was.
    """

    fixed_ms: float
    item_ms: float = 0.0
    spread: float = 0.1
    largest: int = 32
    client_ms: float = 0.2
    stop_ms: tuple[float, float] = (math.inf, math.inf)
    warm_up: float = 1.0
    warm_up_ms: float = 1.0
    drift: float = 0.0
    slow: float = 0.0
    slow_factor: float = 1.0
    noise: float = 0.0
    noise_ms: float = 50.0

    def serving(self, rng: np.random.Generator) -> Serve:
        """What says when a batch ends that begins at a time, for batch after batch."""
        shape = 1 / self.spread**2
        wandered, at_ms = rng.normal(0, self.noise), 0.0

        def serve(begin_ms: float, requests: int) -> float:
            nonlocal wandered, at_ms
            slowness = 1 + (self.warm_up - 1) * max(0.0, 1 - begin_ms / self.warm_up_ms)
            slowness *= 1 + self.drift * begin_ms / 1e3
            if self.slow and rng.random() < self.slow:
                slowness *= self.slow_factor
            if self.noise:
                kept = math.exp((at_ms - begin_ms) / self.noise_ms)
                wandered = kept * wandered + rng.normal(0, self.noise * math.sqrt(1 - kept**2))
                at_ms = begin_ms
                slowness *= math.exp(wandered)
            end_ms = begin_ms + slowness * (self.fixed_ms + self.item_ms * requests) * rng.gamma(shape, 1 / shape)
            return self.stop_ms[1] if self.stop_ms[0] <= end_ms < self.stop_ms[1] else end_ms

        return serve


def completions(batcher: Batcher, concurrency: int, rng: np.random.Generator) -> Iterator[tuple[float, float]]:
    """When each request was sent and done, in ms, in the order in which they are done, without end."""
    arrivals = [(0.0, client) for client in range(concurrency)]
    waiting: list[float] = []
    now, serve = 0.0, batcher.serving(rng)
    while True:
        while arrivals and arrivals[0][0] <= now:
            waiting.append(heapq.heappop(arrivals)[0])
        if not waiting:
            now = arrivals[0][0]
            continue
        batch, waiting = waiting[: batcher.largest], waiting[batcher.largest :]
        now = serve(now, len(batch))
        for place, sent in enumerate(batch):
            done = now + place * BETWEEN_MATES_MS
            heapq.heappush(arrivals, (done + batcher.client_ms * (0.5 + rng.random()), place))
            yield sent, done
        now += (len(batch) - 1) * BETWEEN_MATES_MS


def samples_of(sent_ms: Sequence[float], done_ms: Sequence[float], wall_s: float) -> Samples:
    """Samples without a failure, sent when they were due, of 100 bytes each."""
    return Samples(
        sent_ns=np.array(np.array(sent_ms) * 1e6, dtype=np.int64),
        done_ns=np.array(np.array(done_ms) * 1e6, dtype=np.int64),
        ok=np.ones(len(sent_ms), dtype=np.bool_),
        errors={},
        cpu_s=wall_s / 10,
        wall_s=wall_s,
        lag_us=np.zeros(len(sent_ms), dtype=np.int32),
        received=np.full(len(sent_ms), 100, dtype=np.uint32),
    )


def run(batcher: Batcher, concurrency: int, wall_s: float, rng: np.random.Generator) -> Samples:
    """What a load of so many seconds would have given."""
    return until(completions(batcher, concurrency, rng), wall_s)


def until(requests: Iterator[tuple[float, float]], wall_s: float) -> Samples:
    """Those that ended within so many seconds."""
    ended = list(takewhile(lambda request: request[1] <= wall_s * 1e3, requests))
    return samples_of([sent for sent, _ in ended], [done for _, done in ended], wall_s)
