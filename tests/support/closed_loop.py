"""A closed loop against a server that does not exist: known truth for the statistics, in no time."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from typing_extensions import Self

from tuner.load.protocols import Concurrency, Samples, Watch

_BETWEEN_MATES_MS = 0.02


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
    """

    fixed_ms: float
    item_ms: float = 0.0
    spread: float = 0.1
    largest: int = 32
    client_ms: float = 0.2
    stop_ms: tuple[float, float] = (math.inf, math.inf)
    warm_up: float = 1.0
    warm_up_ms: float = 1.0


def completions(batcher: Batcher, concurrency: int, rng: np.random.Generator) -> Iterator[tuple[float, float]]:
    """When each request was sent and done, in ms, in the order in which they are done, without end."""
    arrivals = [(0.0, client) for client in range(concurrency)]
    waiting: list[float] = []
    now = 0.0
    while True:
        while arrivals and arrivals[0][0] <= now:
            waiting.append(heapq.heappop(arrivals)[0])
        if not waiting:
            now = arrivals[0][0]
            continue
        batch, waiting = waiting[: batcher.largest], waiting[batcher.largest :]
        coldness = 1 + (batcher.warm_up - 1) * max(0.0, 1 - now / batcher.warm_up_ms)
        shape = 1 / batcher.spread**2
        now += coldness * (batcher.fixed_ms + batcher.item_ms * len(batch)) * rng.gamma(shape, 1 / shape)
        if batcher.stop_ms[0] <= now < batcher.stop_ms[1]:
            now = batcher.stop_ms[1]
        for place, sent in enumerate(batch):
            done = now + place * _BETWEEN_MATES_MS
            heapq.heappush(arrivals, (done + batcher.client_ms * (0.5 + rng.random()), place))
            yield sent, done
        now += (len(batch) - 1) * _BETWEEN_MATES_MS


def samples_of(sent_ms: list[float], done_ms: list[float], wall_s: float) -> Samples:
    """Samples without a failure."""
    return Samples(
        sent_ns=np.array(np.array(sent_ms) * 1e6, dtype=np.int64),
        done_ns=np.array(np.array(done_ms) * 1e6, dtype=np.int64),
        ok=np.ones(len(sent_ms), dtype=np.bool_),
        errors={},
        cpu_s=wall_s / 10,
        wall_s=wall_s,
    )


def run(batcher: Batcher, concurrency: int, wall_s: float, rng: np.random.Generator) -> Samples:
    """What a load of so many seconds would have given."""
    sent_ms: list[float] = []
    done_ms: list[float] = []
    for sent, done in completions(batcher, concurrency, rng):
        if done > wall_s * 1e3:
            break
        sent_ms.append(sent)
        done_ms.append(done)
    return samples_of(sent_ms, done_ms, wall_s)


class SimulatedEngine:
    """A `LoadEngine` whose seconds pass as fast as they can be computed."""

    def __init__(self, batcher: Batcher, rng: np.random.Generator) -> None:
        self._batcher = batcher
        self._rng = rng
        self.wall_s = 0.0

    def offer(self, load: Concurrency, watch: Watch, *, first_look_s: float) -> Samples:
        """See `LoadEngine.offer`."""
        future = completions(self._batcher, load.requests, self._rng)
        pending = next(future)
        sent_ms: list[float] = []
        done_ms: list[float] = []
        self.wall_s, pause_s = 0.0, first_look_s
        while True:
            self.wall_s += pause_s
            while pending[1] <= self.wall_s * 1e3:
                sent_ms.append(pending[0])
                done_ms.append(pending[1])
                pending = next(future)
            samples = samples_of(sent_ms, done_ms, self.wall_s)
            if (wanted_s := watch(samples)) is None:
                return samples
            pause_s = wanted_s

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
