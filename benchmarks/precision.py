"""How sure our numbers are, whether they are right about it, and how long that takes.

On simulated servers whose truth is known: how often the 95 % intervals of throughput and p99 hold it, and how long a
measurement takes that ends by itself, as it does in `tritontune measure`. Then on a real Triton with the example model,
the same time beside that of perf_analyzer with its defaults, and how often two measurements agree between which a
neighbour has loaded the machine.

    python benchmarks/precision.py [--runs 400] [--pairs 10] [--perf-analyzer PATH]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from perf_analyzer import PerfAnalyzer
from rich import box
from rich.console import Console
from rich.table import Table

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from support.closed_loop import Batcher, run
from support.simulated_engine import SimulatedEngine

from tuner.config.repository import ModelRepository
from tuner.config.staging import stage
from tuner.core.loads import Concurrency
from tuner.core.record import Interval
from tuner.measure.level import measure_level
from tuner.measure.points import OperatingPoint
from tuner.measure.rules import LevelRules
from tuner.measure.session import Session, open_session
from tuner.options.groups import LoadOptions
from tuner.servers.installation import find_triton
from tuner.servers.process import ProcessLauncher
from tuner.servers.protocols import Launch
from tuner.stats.window import steady_window

REPOSITORY = Path(__file__).parents[1] / "examples" / "model_repository"
MODEL = "mlp"
LOAD = Concurrency(16)
SERVERS = {
    "3 ms": Batcher(3.0, item_ms=0.1, largest=8),
    "25 ms": Batcher(25.0, item_ms=0.8, largest=8),
    "250 ms": Batcher(250.0, item_ms=8.0, largest=8),
    # A machine that is not alone: its speed wanders by 8 %, and remembers where it was for 50 ms.
    "noisy": Batcher(3.0, item_ms=0.1, largest=8, noise=0.08, noise_ms=50),
    # Three times as slow at first, and ever less so for a second.
    "cold start": Batcher(3.0, item_ms=0.1, largest=8, warm_up=3.0, warm_up_ms=1_000),
    # 1 % slower each second.
    "drift": Batcher(3.0, item_ms=0.1, largest=8, drift=0.01),
}
# perf_analyzer takes at least three windows of 5 s, each with some time around it.
PERF_ANALYZER_S = 18.0
_TRUTH_BATCHES = 60_000
_NEIGHBOUR_S = 10.0


@dataclass(frozen=True)
class Run:
    """One simulated measurement.

    Attributes:
        wall_s: How long it took.
        throughput: Its interval.
        p99_ms: Its interval.
        holds: Whether each holds the truth.
    """

    wall_s: float
    throughput: Interval
    p99_ms: Interval
    holds: tuple[bool, bool]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400, help="simulated measurements of each server")
    parser.add_argument("--pairs", type=int, default=10, help="pairs of measurements on the real Triton")
    parser.add_argument("--perf-analyzer", type=Path, help="also take its time on the real Triton")
    options = parser.parse_args()
    console = Console(width=120)
    if options.runs:
        with ProcessPoolExecutor() as pool:
            runs = dict(zip(SERVERS, pool.map(partial(simulated, options.runs), SERVERS), strict=True))
        console.print(_coverage_table(runs))
    if options.pairs:
        _real(console, options.pairs, options.perf_analyzer)


def simulated(runs: int, name: str) -> list[Run]:
    """So many measurements of a server."""
    server, rng = SERVERS[name], np.random.default_rng(1)
    truth = _Truth(server)
    found = []
    for _ in range(runs):
        engine = SimulatedEngine(server, rng)
        point = measure_level(engine, LOAD, statistics=None, health=lambda: None, rules=LevelRules())
        throughput, p99_ms = truth.at(engine.wall_s - point.window_s / 2)
        rate, latency = point.throughput, point.latency_ms["p99"]
        holds = (rate.low <= throughput <= rate.high, latency.low <= p99_ms <= latency.high)
        found.append(Run(engine.wall_s, rate, latency, holds))
    return found


class _Truth:
    """What a server that has warmed up does in the long run; where it drifts, at any moment."""

    def __init__(self, server: Batcher) -> None:
        warm = replace(server, warm_up=1.0, drift=0.0)
        self._drift = server.drift
        self._slowness = (1.0, 1.2) if server.drift else (1.0,)
        slowed = [replace(warm, fixed_ms=warm.fixed_ms * s, item_ms=warm.item_ms * s) for s in self._slowness]
        self._known = [self._long_run(each) for each in slowed]

    def at(self, when_s: float) -> tuple[float, float]:
        """Throughput, and p99 in ms, so long after the beginning."""
        slowness = 1 + self._drift * when_s
        throughput, p99_ms = (np.interp(slowness, self._slowness, each) for each in zip(*self._known, strict=True))
        return float(throughput), float(p99_ms)

    @staticmethod
    def _long_run(server: Batcher) -> tuple[float, float]:
        batch_ms = server.fixed_ms + server.item_ms * server.largest
        samples = run(server, LOAD.requests, _TRUTH_BATCHES * batch_ms / 1e3, np.random.default_rng(0))
        window = steady_window(samples, LOAD)
        return len(window) / window.length_s, float(np.quantile(window.latency_ms, 0.99))


def _coverage_table(runs: dict[str, list[Run]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=f"simulated, {len(next(iter(runs.values())))} runs each")
    columns = (
        "server",
        "throughput held",
        "p99 held",
        "+-throughput",
        "+-p99",
        "seconds",
        "longest",
        "/ perf_analyzer",
    )
    for column in columns:
        table.add_column(column, justify="left" if column == "server" else "right")
    for name, each in runs.items():
        seconds = statistics.median(run.wall_s for run in each)
        table.add_row(
            name,
            *(f"{statistics.fmean(run.holds[place] for run in each):.1%}" for place in (0, 1)),
            f"{statistics.median(run.throughput.relative_half_width for run in each):.1%}",
            f"{statistics.median(run.p99_ms.relative_half_width for run in each):.1%}",
            f"{seconds:.2f}",
            f"{max(run.wall_s for run in each):.2f}",
            f"{seconds / PERF_ANALYZER_S:.2f}",
        )
    return table


def _real(console: Console, pairs: int, program: Path | None) -> None:
    ours_s, theirs_s, agreed = [], [], 0
    with tempfile.TemporaryDirectory() as folder, _served(Path(folder)) as (address, session):
        perf_analyzer = PerfAnalyzer(program, Path(tempfile.mkdtemp(dir=folder))) if program else None
        for number in range(pairs):
            first, first_s = _measured(session)
            theirs_s.append(_seconds_of(perf_analyzer, address) if perf_analyzer else PERF_ANALYZER_S)
            with _neighbour():
                time.sleep(_NEIGHBOUR_S)
            second, second_s = _measured(session)
            ours_s += [first_s, second_s]
            agrees = all(_overlap(one, other) for one, other in zip(_told(first), _told(second), strict=True))
            agreed += agrees
            words = "agree" if agrees else "DO NOT AGREE"
            pair = f"{_in_words(first, first_s)}; {_in_words(second, second_s)}: {words}"
            console.print(f"pair {number}: {pair}", soft_wrap=True)
    ours, theirs = statistics.median(ours_s), statistics.median(theirs_s)
    console.print(f"a measurement: {ours:.2f} s, perf_analyzer's {theirs:.1f} s, ratio {ours / theirs:.2f}")
    console.print(f"intervals of throughput and p99 overlap in {agreed} of {pairs} pairs")


@contextmanager
def _served(folder: Path) -> Iterator[tuple[str, Session]]:
    """The example model in a Triton: its gRPC address, and what measures it."""
    staged = stage(ModelRepository.open(REPOSITORY), folder / "repository")
    with ProcessLauncher(find_triton()).launch(Launch(staged.path, MODEL, folder / "log", 60.0)) as server:
        rules = LevelRules()
        with open_session(server.endpoint, MODEL, LoadOptions(), rules=rules, health=server.check) as session:
            yield server.endpoint.address, session


def _measured(session: Session) -> tuple[OperatingPoint, float]:
    began = time.monotonic()
    return session.measure(LOAD), time.monotonic() - began


def _told(point: OperatingPoint) -> tuple[Interval, Interval]:
    return point.throughput, point.latency_ms["p99"]


def _overlap(one: Interval, other: Interval) -> bool:
    return one.low <= other.high and other.low <= one.high


def _in_words(point: OperatingPoint, seconds: float) -> str:
    rate, p99 = _told(point)
    told = f"{rate.value:,.0f}/s ({rate.low:,.0f} to {rate.high:,.0f}), p99 {p99.value:.1f} ms"
    return f"{told} ({p99.low:.1f} to {p99.high:.1f}) in {seconds:.1f} s"


def _seconds_of(perf_analyzer: PerfAnalyzer, address: str) -> float:
    began = time.monotonic()
    with perf_analyzer.start(address, MODEL, LOAD.requests, "--percentile", "99") as process:
        process.communicate(timeout=120)
    return time.monotonic() - began


@contextmanager
def _neighbour() -> Iterator[None]:
    """Somebody who keeps a core busy."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


if __name__ == "__main__":
    main()
