"""tritontune against Model Analyzer 1.58: the same model, Triton, limit and bounds, on one machine.

Each of Model Analyzer's modes, an exhaustive grid, and tritontune with and without verifying, which gets a fifth and a
tenth of the wall time of the optuna mode, pick a config and a load. Then every pick is measured with one ruler:
launched again and again in random order, `--seconds` in all. With `--launch-cost 20` the model sleeps while it loads,
as an engine build takes its time. What has been done stays in `--keep`, and is not done again.

    python benchmarks/vs_model_analyzer.py --model-analyzer PATH --perf-analyzer PATH [--launch-cost 2]
        [--p99 100] [--seconds 20] [--keep FOLDER] [--only STAGE]...
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import get_args

from grid import SPACE
from model_analyzer import Bounds, Mode, ModelAnalyzer
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tuner.config.config import ModelConfig
from tuner.config.repository import ModelRepository
from tuner.config.staging import StagedRepository, stage
from tuner.core.loads import Concurrency
from tuner.core.machine import Machine
from tuner.measure.rules import LevelRules
from tuner.measure.session import open_session
from tuner.options.groups import LoadOptions
from tuner.servers.installation import find_triton
from tuner.servers.process import ProcessLauncher
from tuner.servers.protocols import Launch
from tuner.space.space import SearchSpace

EXAMPLE = Path(__file__).parents[1] / "examples" / "model_repository" / "mlp"
MODEL = "mlp"
MODES: tuple[Mode, ...] = get_args(Mode)
# Shares of the optuna mode's wall time.
HASTY, VERIFIED = 10, 5
STAGES = ("grid", *MODES, "tritontune", "tritontune, verified")
# To start, and to end the load that is under way when a budget is spent, is within the share, too.
_AROUND_S = 10.0
# A launch of the example takes this long by itself.
_OWN_LAUNCH_S = 2.0
_ROUNDS = 4
# The best of a grid owes much to luck, so that the best of so many are measured again, and if need be the next ones.
_GRID_FINALISTS = 12
_LAUNCH_S = 120.0
_SLOW = """import time

import without_sleep


class TritonPythonModel(without_sleep.TritonPythonModel):
    def initialize(self, args):
        time.sleep({seconds})
        super().initialize(args)
"""


@dataclass(frozen=True)
class Pick:
    """What a tuner chose, and what that took.

    Attributes:
        wall_s: From start to end.
        launches: Of a server, or loads of a model by one.
        config: The text of its config.pbtxt.
        concurrency: Under which load.
        reported: Inferences a second that it said of it.
    """

    wall_s: float
    launches: int
    config: str
    concurrency: int
    reported: float


@dataclass(frozen=True)
class Truth:
    """What the ruler says of a pick: medians over rounds."""

    throughput: float
    p99_ms: float


class Comparison:
    """All of it, one stage after the other.

    Args:
        folder: Where the stages' results stay.
        launch_cost: Seconds that a launch takes.
        bounds: What all may try.
        seconds: For which the ruler measures a pick.
        opponent: Model Analyzer.
    """

    def __init__(
        self, folder: Path, launch_cost: float, bounds: Bounds, seconds: float, opponent: ModelAnalyzer
    ) -> None:
        self._folder = folder
        self._bounds = bounds
        self._seconds = seconds
        self._opponent = opponent
        folder.mkdir(parents=True, exist_ok=True)
        self.repository = _repository(folder / "repository", launch_cost - _OWN_LAUNCH_S)

    def pick(self, stage: str) -> Pick:
        """The pick of a stage, which is run unless it was before."""
        # What a launch costs is nothing to the grid.
        folder = self._folder.parent if stage == "grid" else self._folder
        kept = folder / f"{stage}.json"
        if not kept.exists():
            pick = self._stages[stage]()
            kept.write_text(json.dumps(asdict(pick)), encoding="utf-8")
        return Pick(**json.loads(kept.read_text(encoding="utf-8")))

    @property
    def _stages(self) -> dict[str, Callable[[], Pick]]:
        return {
            "grid": self._grid,
            **{mode: partial(self._analyzed, mode) for mode in MODES},
            "tritontune": partial(self._tuned, HASTY, "--no-verify"),
            "tritontune, verified": partial(self._tuned, VERIFIED),
        }

    def _analyzed(self, mode: Mode) -> Pick:
        with tempfile.TemporaryDirectory() as folder:
            found = self._opponent.profile(self.repository, MODEL, mode, self._bounds, Path(folder))
        return Pick(found.wall_s, found.configs, found.config, found.concurrency, found.throughput)

    def _tuned(self, share: int, *options: str) -> Pick:
        budget_s = self.pick("optuna").wall_s / share - _AROUND_S
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            space = Path(folder) / "space.yaml"
            space.write_text(SPACE.model_dump_json(), encoding="utf-8")
            command = [str(Path(sys.executable).with_name("tritontune")), "run", str(self.repository)]
            command += ["--slo", f"p99={self._bounds.p99_ms}ms", "--budget", f"{budget_s:.1f}s", "--space", str(space)]
            command += ["--max-concurrency", str(self._bounds.concurrency), "--out", str(out), *options]
            began = time.monotonic()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            wall_s = time.monotonic() - began
            told = json.loads((out / MODEL / "front.json").read_text(encoding="utf-8"))
            config = (out / MODEL / "best" / "config.pbtxt").read_text(encoding="utf-8")
        best = told["best"]
        launches = told["budget"]["launches"]
        return Pick(wall_s, launches, config, best["load"]["concurrency"], best["throughput"]["value"])

    def _grid(self) -> Pick:
        """Every candidate of the space at every doubling of the load, and the best ones again by the ruler.

        The model does not sleep for it.
        """
        began = time.monotonic()
        base = ModelConfig.parse((EXAMPLE / "config.pbtxt").read_text(encoding="utf-8"), MODEL)
        space = SearchSpace.build(SPACE, base, base, Machine(cpus=None, gpus=(), processor=""))
        candidates = list(space.assignments())
        loads = [2**power for power in range(int(math.log2(self._bounds.concurrency)) + 1)]
        found: list[Pick] = []
        with tempfile.TemporaryDirectory() as folder:
            ruler = Ruler(Path(folder), _repository(Path(folder) / "quick", 0.0))
            for assignment in track(random.Random(0).sample(candidates, len(candidates)), "grid"):  # noqa: S311 (no secret)
                config = space.candidate(assignment).config.text
                for load, truth in zip(loads, ruler.measure(config, loads, seconds=0.7), strict=True):
                    if truth.p99_ms <= self._bounds.p99_ms:
                        found.append(Pick(0.0, len(candidates), config, load, truth.throughput))
        found.sort(key=lambda pick: pick.reported, reverse=True)
        for first in range(0, len(found), _GRID_FINALISTS):
            finalists = found[first : first + _GRID_FINALISTS]
            told = zip(finalists, measured(finalists, self._seconds), strict=True)
            holding = [replace(pick, reported=t.throughput) for pick, t in told if t.p99_ms <= self._bounds.p99_ms]
            if holding:
                best = max(holding, key=lambda pick: pick.reported)
                return replace(best, wall_s=time.monotonic() - began)
        raise RuntimeError("no candidate holds the limit when it is measured again")


class Ruler:
    """Measures configs of a repository's model.

    Args:
        folder: For its own use.
        repository: With the model.
    """

    def __init__(self, folder: Path, repository: Path) -> None:
        self._folder = folder
        self._staged: StagedRepository = stage(ModelRepository.open(repository), folder / "staged")
        self._launcher = ProcessLauncher(find_triton())

    def measure(self, config: str, loads: list[int], *, seconds: float) -> list[Truth]:
        """Launch a config once, and measure it under each of the loads for so long."""
        rules = LevelRules(min_s=seconds, max_s=seconds, slow_max_s=max(30.0, seconds))
        self._staged.write_config(MODEL, config)
        launch = Launch(self._staged.path, MODEL, self._folder / "log", _LAUNCH_S)
        with (
            self._launcher.launch(launch) as server,
            open_session(server.endpoint, MODEL, LoadOptions(), rules=rules, health=server.check) as session,
        ):
            points = [session.measure(Concurrency(load)) for load in loads]
        return [Truth(point.throughput.value, point.latency_ms["p99"].value) for point in points]


def main() -> None:
    """Compare, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-analyzer", type=Path, required=True, help="the program, in an environment of its own")
    parser.add_argument("--perf-analyzer", type=Path, required=True, help="that of the wheel tritonclient 2.51.0")
    parser.add_argument("--launch-cost", type=float, default=_OWN_LAUNCH_S)
    parser.add_argument("--p99", type=float, default=100.0, help="the limit, in ms")
    parser.add_argument("--seconds", type=float, default=20.0, help="of measuring each pick")
    parser.add_argument("--keep", type=Path, help="where results of stages stay")
    parser.add_argument("--only", action="append", choices=STAGES, help="run these stages, and compare another time")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        keep = (asked.keep or Path(folder)) / f"{asked.launch_cost:g}s"
        opponent = ModelAnalyzer(asked.model_analyzer, asked.perf_analyzer)
        comparison = Comparison(keep, asked.launch_cost, Bounds(asked.p99), asked.seconds, opponent)
        picks = {name: comparison.pick(name) for name in asked.only or STAGES}
        if not asked.only:
            truths = dict(zip(picks, measured(list(picks.values()), asked.seconds), strict=True))
            Console(width=120).print(table(picks, truths, asked.p99, asked.launch_cost))


def measured(picks: Sequence[Pick], seconds: float) -> list[Truth]:
    """All picks by one ruler, launched in random order round by round."""
    told: list[list[Truth]] = [[] for _ in picks]
    with tempfile.TemporaryDirectory() as folder:
        ruler = Ruler(Path(folder), _repository(Path(folder) / "quick", 0.0))
        for number in track(range(_ROUNDS), "measuring the picks"):
            for which in random.Random(number).sample(range(len(picks)), len(picks)):  # noqa: S311 (no secret)
                pick = picks[which]
                told[which] += ruler.measure(pick.config, [pick.concurrency], seconds=seconds / _ROUNDS)
    return [
        Truth(statistics.median(t.throughput for t in each), statistics.median(t.p99_ms for t in each)) for each in told
    ]


def table(picks: dict[str, Pick], truths: dict[str, Truth], limit_ms: float, launch_cost: float) -> Table:
    """What each took, and what its pick is worth."""
    made = Table(box=box.SIMPLE_HEAD, title=f"p99 <= {limit_ms:g} ms, launches of {launch_cost:g} s")
    columns = ("", "wall time", "/ optuna", "launches", "reported", "measured", "p99", "holds", "/ grid's")
    for column in columns:
        made.add_column(column, justify="right" if column else "left")
    optuna, best = picks["optuna"], truths["grid"]
    for name, pick in picks.items():
        truth = truths[name]
        made.add_row(
            name,
            f"{pick.wall_s:,.0f} s",
            f"{pick.wall_s / optuna.wall_s:.2f}",
            str(pick.launches),
            f"{pick.reported:,.0f}/s",
            f"{truth.throughput:,.0f}/s",
            f"{truth.p99_ms:.1f} ms",
            "yes" if truth.p99_ms <= limit_ms else "NO",
            f"{truth.throughput / best.throughput:.2f}",
        )
    return made


def _repository(path: Path, sleep_s: float) -> Path:
    """The example model, which sleeps while it loads."""
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(EXAMPLE, path / MODEL, ignore=shutil.ignore_patterns("__pycache__"))
    if sleep_s > 0:
        version = path / MODEL / "1"
        (version / "model.py").rename(version / "without_sleep.py")
        (version / "model.py").write_text(_SLOW.format(seconds=sleep_s), encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
