"""A server for each candidate against one that loads all in turn: what each costs, and whether they find the same.

Measures the same candidates of the example model both ways, in turns: once with `--isolation relaunch`, where each
launch is a new Triton, and once with `--isolation reload`, where one Triton loads candidate after candidate. Prints,
for each candidate, the seconds from launch to ready and from stop to gone, the throughput of both, and their ratio;
then the medians over all rounds, and the share of pairs of candidates that both put into the same order.

    python benchmarks/isolation.py [--rounds 3]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from tuner.config.config import ModelConfig, Value
from tuner.config.repository import ModelRepository
from tuner.config.staging import StagedRepository, stage
from tuner.core.loads import Concurrency
from tuner.measure.rules import LevelRules
from tuner.measure.session import open_session
from tuner.options.groups import LoadOptions
from tuner.servers.installation import find_triton
from tuner.servers.process import ProcessLauncher
from tuner.servers.protocols import Launch, Launcher
from tuner.servers.reload import ReloadLauncher

REPOSITORY = Path(__file__).parents[1] / "examples" / "model_repository"
MODEL = "mlp"
COUNT, BATCHING, BATCH = "instance_group[*].count", "dynamic_batching.preferred_batch_size", "max_batch_size"
CANDIDATES: dict[str, dict[str, Value | None]] = {
    "as it is": {},
    "2 instances": {COUNT: 2},
    "batches of 8": {BATCHING: (8,)},
    "batches of 32": {BATCHING: (32,)},
    "2 instances, batches of 16": {COUNT: 2, BATCHING: (16,)},
    "batches of 64": {BATCH: 64, BATCHING: (64,)},
}
LOAD = Concurrency(32)
RULES = LevelRules(min_s=2.0, max_s=3.0)


@dataclass(frozen=True)
class Run:
    """One candidate, launched once.

    Attributes:
        launch_s: Until the model was ready.
        stop_s: Until it was gone.
        throughput: Inferences a second.
        p99_ms: Of their latency.
    """

    launch_s: float
    stop_s: float
    throughput: float
    p99_ms: float


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    repository = ModelRepository.open(REPOSITORY)
    config = repository.model(MODEL).config
    if config is None:
        raise SystemExit(f"{REPOSITORY / MODEL} has no config.pbtxt")
    runs: dict[tuple[str, str], list[Run]] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        staged = stage(repository, Path(folder) / "repository")
        process = ProcessLauncher(find_triton())
        launchers: dict[str, Launcher] = {
            "relaunch": process,
            "reload": stack.enter_context(closing(ReloadLauncher(process))),
        }
        # The server that reloads is started once a run, by a candidate that does not count.
        measure(launchers["reload"], staged, config, Path(folder) / "first.log")
        for number in range(rounds):
            for name, changes in CANDIDATES.items():
                order = list(launchers) if number % 2 else list(reversed(launchers))
                for kind in order:
                    log = Path(folder) / f"{kind}.log"
                    run = measure(launchers[kind], staged, config.edited(changes), log)
                    runs.setdefault((name, kind), []).append(run)
    Console(width=130).print(table(runs))
    print(f"pairs of candidates in the same order: {agreement(runs):.0%}")


def measure(launcher: Launcher, staged: StagedRepository, config: ModelConfig, log: Path) -> Run:
    """Launch a candidate, measure it, and stop it."""
    staged.write_config(MODEL, config.text)
    began = time.monotonic()
    server = launcher.launch(Launch(staged.path, MODEL, log, 60))
    try:
        launch_s = time.monotonic() - began
        with open_session(server.endpoint, MODEL, LoadOptions(), rules=RULES, health=server.check) as session:
            point = session.measure(LOAD)
    finally:
        began = time.monotonic()
        server.stop()
    return Run(launch_s, time.monotonic() - began, point.throughput.value, point.latency_ms["p99"].value)


def table(runs: dict[tuple[str, str], list[Run]]) -> Table:
    """Medians of both, and of the rounds' ratios, reload / relaunch."""
    shown = Table(box=box.SIMPLE_HEAD)
    shown.add_column("candidate")
    for column in ("relaunch s", "reload s", "ratio", "inferences/s", "reload", "ratio", "p99 ms", "reload", "ratio"):
        shown.add_column(column, justify="right")
    for name in CANDIDATES:
        both = runs[name, "relaunch"], runs[name, "reload"]
        cells = [name]
        for values in (
            [[run.launch_s + run.stop_s for run in each] for each in both],
            [[run.throughput for run in each] for each in both],
            [[run.p99_ms for run in each] for each in both],
        ):
            ratio = statistics.median(b / a for a, b in zip(*values, strict=True))
            cells += [f"{statistics.median(each):,.2f}" for each in values] + [f"{ratio:.3f}"]
        shown.add_row(*cells)
    return shown


def agreement(runs: dict[tuple[str, str], list[Run]]) -> float:
    """The share of pairs of candidates that both ways put into the same order of throughput."""
    medians = {key: statistics.median(run.throughput for run in each) for key, each in runs.items()}
    pairs = list(itertools.combinations(CANDIDATES, 2))
    same = sum(
        (medians[a, "relaunch"] < medians[b, "relaunch"]) == (medians[a, "reload"] < medians[b, "reload"])
        for a, b in pairs
    )
    return same / len(pairs)


if __name__ == "__main__":
    main()
