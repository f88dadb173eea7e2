"""Our load generator against NVIDIA's perf_analyzer: what each costs, adds, and reaches, on one server in one run.

Starts the Triton of the wheel nvidia-pytriton with an identity model whose answers come from the response cache, so
that the client is the limit, and lets both tools load it in turns. Each number is the median over the rounds; CPU time
and the server's own success count are read from outside, in the same seconds, for both tools alike.

    python benchmarks/load_generator.py --perf-analyzer PATH

perf_analyzer lies in the wheel tritonclient 2.51.0 (`*.data/data/bin/perf_analyzer`).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from cached_server import cached_server, plan_for
from perf_analyzer import PerfAnalyzer, told
from rich import box
from rich.console import Console
from rich.table import Table

from tuner.core.loads import Concurrency
from tuner.load.engine import WorkerEngine
from tuner.load.protocols import Samples
from tuner.options.endpoint import Endpoint
from tuner.servers.client import TritonClient

SIZES = {"small": 16, "large": 150_000}
"""Models by their inputs' length, in FP32: 64 bytes and 600 kB."""

# Both have warmed up by then, and are not yet done when the second has come.
_FROM_S, _FOR_S = 2.0, 3.0
_WINDOW_MS = 2_000


@dataclass(frozen=True)
class Run:
    """One run of one tool.

    Attributes:
        cpu_us: CPU time of the client a request.
        p50_us: The median latency that it reports.
        throughput: Requests a second that it reports.
        counted: Requests a second that the server counted.
    """

    cpu_us: float
    p50_us: float
    throughput: float
    counted: float


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--perf-analyzer", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32, 128])
    options = parser.parse_args()
    console = Console(width=130)
    runs: dict[tuple[str, int, str], list[Run]] = {}
    with tempfile.TemporaryDirectory() as folder, cached_server(Path(folder), SIZES) as address:
        libraries = Path(folder) / "libraries"
        libraries.mkdir()
        theirs = partial(_theirs, PerfAnalyzer(options.perf_analyzer, libraries))
        for number in range(options.rounds):
            for size in SIZES:
                for concurrency in options.concurrency:
                    for tool, measure in (("ours", _ours), ("perf_analyzer", theirs)):
                        run = measure(address, size, concurrency)
                        runs.setdefault((size, concurrency, tool), []).append(run)
                        console.print(f"round {number}: {size}, c={concurrency}, {tool}: {run}", soft_wrap=True)
    console.print(_table(runs))


def _table(runs: dict[tuple[str, int, str], list[Run]]) -> Table:
    """Medians of both, and the median of the rounds' ratios, ours / perf_analyzer's."""
    table = Table(box=box.SIMPLE_HEAD)
    columns = ("input", "c", "CPU us", "theirs", "ratio", "p50 us", "theirs", "ratio", "requests/s", "theirs", "ratio")
    for column in (*columns, "reported / counted", "theirs"):
        table.add_column(column, justify="right")
    for size, concurrency, _ in [key for key in runs if key[2] == "ours"]:
        ours, theirs = runs[size, concurrency, "ours"], runs[size, concurrency, "perf_analyzer"]
        cells = [size, str(concurrency)]
        for name in ("cpu_us", "p50_us", "throughput"):
            a, b = ([getattr(run, name) for run in each] for each in (ours, theirs))
            ratio = statistics.median(x / y for x, y in zip(a, b, strict=True))
            cells += [f"{statistics.median(a):,.1f}", f"{statistics.median(b):,.1f}", f"{ratio:.3f}"]
        for each in (ours, theirs):
            cells.append(f"{statistics.median(run.throughput / run.counted for run in each):.4f}")
        table.add_row(*cells)
    return table


def _ours(address: str, model: str, concurrency: int) -> Run:
    with TritonClient(Endpoint(address)) as client, WorkerEngine(plan_for(address, model)) as engine:
        tree = _Tree(os.getpid())
        looks: list[tuple[int, int, float]] = []

        def watch(_: Samples) -> float | None:
            looks.append((_successes(client, model), time.monotonic_ns(), tree.cpu_s()))
            return _FOR_S if len(looks) == 1 else None

        samples = engine.offer(Concurrency(concurrency), watch, first_look_s=_FROM_S)
    (before, start_ns, cpu_before_s), (after, end_ns, cpu_after_s) = looks
    within = (samples.done_ns > start_ns) & (samples.done_ns <= end_ns)
    seconds, count = (end_ns - start_ns) / 1e9, int(np.count_nonzero(within & samples.ok))
    return Run(
        cpu_us=(cpu_after_s - cpu_before_s) / (after - before) * 1e6,
        p50_us=float(np.median((samples.done_ns - samples.sent_ns)[within])) / 1e3,
        throughput=count / seconds,
        counted=(after - before) / seconds,
    )


def _theirs(perf_analyzer: PerfAnalyzer, address: str, model: str, concurrency: int) -> Run:
    # Three windows, which are taken as they come.
    more = ("-p", str(_WINDOW_MS), "-r", "3", "-s", "999")
    with (
        TritonClient(Endpoint(address)) as client,
        perf_analyzer.start(address, model, concurrency, *more) as process,
    ):
        tree = _Tree(process.pid)
        time.sleep(_FROM_S)
        before, began, cpu_before_s = _successes(client, model), time.monotonic(), tree.cpu_s()
        time.sleep(_FOR_S)
        after, ended, cpu_after_s = _successes(client, model), time.monotonic(), tree.cpu_s()
        said, _ = process.communicate(timeout=60)
    return Run(
        cpu_us=(cpu_after_s - cpu_before_s) / (after - before) * 1e6,
        p50_us=told(r"p50 latency: (\d+)", said),
        throughput=told(r"Throughput: ([\d.]+) infer/sec", said),
        counted=(after - before) / (ended - began),
    )


class _Tree:
    """A process and its children."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)

    def cpu_s(self) -> float:
        """CPU seconds so far, but for what serves."""
        processes = [self._root, *self._root.children(recursive=True)]
        times = [each.cpu_times() for each in processes if not each.name().startswith("triton")]
        return sum(each.user + each.system for each in times)


def _successes(client: TritonClient, model: str) -> int:
    return int(client.statistics(model).inference_stats.success.count)


if __name__ == "__main__":
    main()
