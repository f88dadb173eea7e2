"""A `LoadEngine` for servers that do not exist."""

from __future__ import annotations

from types import TracebackType

import numpy as np
from support.closed_loop import Batcher, completions, samples_of
from support.open_loop import requests_of
from typing_extensions import Self

from tuner.core.loads import Concurrency, Load
from tuner.load.protocols import Samples, Watch


class SimulatedEngine:
    """A `LoadEngine` whose seconds pass as fast as they can be computed."""

    def __init__(self, batcher: Batcher, rng: np.random.Generator) -> None:
        self._batcher = batcher
        self._rng = rng
        self.wall_s = 0.0

    def offer(self, load: Load, watch: Watch, *, first_look_s: float) -> Samples:
        """See `LoadEngine.offer`."""
        if isinstance(load, Concurrency):
            future = completions(self._batcher, load.requests, self._rng)
        else:
            future = requests_of(self._batcher, load, self._rng)
        pending = next(future, None)
        sent_ms: list[float] = []
        done_ms: list[float] = []
        self.wall_s, pause_s = 0.0, first_look_s
        while True:
            self.wall_s += pause_s
            while pending and pending[1] <= self.wall_s * 1e3:
                sent_ms.append(pending[0])
                done_ms.append(pending[1])
                pending = next(future, None)
            if pending is None:
                self.wall_s = done_ms[-1] / 1e3 if done_ms else 0.0
            samples = samples_of(sent_ms, done_ms, self.wall_s)
            wanted_s = watch(samples)
            if wanted_s is None or pending is None:
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
