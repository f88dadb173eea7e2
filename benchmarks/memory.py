"""How much memory a long and quick load takes: the load generator's processes, all together.

    python benchmarks/memory.py [--minutes 10] [--rate 10000]

Offers an open loop to the Triton of the wheel nvidia-pytriton, with an identity model whose answers come from the
response cache, and looks at the samples as often, and into as many of them, as a measurement does. Prints some lines
on the way, and the peak. What two processes share is counted once (PSS); Triton is not counted.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from pathlib import Path

import numpy as np
import psutil
from cached_server import cached_server, plan_for
from typing_extensions import Self

from tuner.core.loads import RequestRate
from tuner.load.engine import WorkerEngine
from tuner.load.protocols import Samples

_GOAL_MB = 600
# As `measure_level` looks.
_LOOK_GROWTH, _LONGEST_PAUSE_S = 1.4, 0.5
_SAMPLE_S = 0.25


def main() -> None:
    """Print what it takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=10_000.0)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        cached_server(Path(folder), {"cached": 16}) as address,
        WorkerEngine(plan_for(address, "cached")) as engine,
    ):
        with _Memory() as memory:
            watch = _Watch(options.minutes * 60, memory)
            samples = engine.offer(RequestRate(options.rate, "constant"), watch, first_look_s=0.15)
        if not len(samples):
            raise SystemExit("no request was answered")
        failed = np.count_nonzero(~samples.ok)
        late = np.percentile(samples.lag_us, 99) / 1e3
        print(
            f"{len(samples):,} requests in {samples.wall_s:.1f} s, {failed} failed, p99 of the send lag {late:.1f} ms"
        )
        verdict = "within" if memory.peak_mb < _GOAL_MB else "beyond"
        print(f"peak {memory.peak_mb:.0f} MB, {verdict} the goal of {_GOAL_MB} MB")


class _Memory:
    """Looks at the memory now and then, in a thread, and remembers the most."""

    def __init__(self) -> None:
        root = psutil.Process()
        children = root.children(recursive=True)
        self._processes = [root, *(child for child in children if not child.name().startswith("triton"))]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.now_mb = self.peak_mb = 0.0

    def _look(self) -> None:
        while not self._over.wait(_SAMPLE_S):
            self.now_mb = sum(process.memory_full_info().pss for process in self._processes) / 1e6
            self.peak_mb = max(self.peak_mb, self.now_mb)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


class _Watch:
    """Reads all samples, as a measurement does at each look, and ends after so many seconds."""

    def __init__(self, seconds: float, memory: _Memory) -> None:
        self._seconds = seconds
        self._memory = memory
        self._next_line_s = 0.0

    def __call__(self, samples: Samples) -> float | None:
        latency_ms = (samples.done_ns - samples.sent_ns)[samples.ok] / 1e6
        p99_ms = float(np.percentile(latency_ms, 99)) if len(latency_ms) else 0.0
        if samples.wall_s >= self._next_line_s:
            self._next_line_s = max(1.0, samples.wall_s * _LOOK_GROWTH)
            words = f"{samples.wall_s:6.1f} s  {len(samples):>10,} requests  p99 {p99_ms:8.1f} ms"
            print(f"{words}  waiting {samples.waiting:,}  {self._memory.now_mb:6.1f} MB", flush=True)
        pause_s = min(_LONGEST_PAUSE_S, (_LOOK_GROWTH - 1) * samples.wall_s)
        return pause_s if samples.wall_s < self._seconds else None


if __name__ == "__main__":
    main()
