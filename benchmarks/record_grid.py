"""Records the grids that `search.py` replays searches against: every candidate of a small space, on the real Triton.

Candidates come in random order, so that what the machine does meanwhile falls on all alike, and each is measured at
every doubling of the load from one request at a time to `--highest`, whatever it gains. A pass takes about ten
minutes a model, and wants a quiet machine; of several passes the medians are written, each launch corrected by how fast
the machine was. Passes stay in `--keep`, and those that are there are not made again.

    python benchmarks/record_grid.py [--model mlp]... [--passes 3] [--highest 256] [--seconds 1.2] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import math
import random
import shutil
import tempfile
import time
from itertools import product
from pathlib import Path

from grid import GRIDS, MODELS, SPACE, Grid, recorded
from rich.progress import track

from tuner.config.config import ModelConfig
from tuner.config.repository import ModelRepository
from tuner.config.staging import stage
from tuner.core.loads import Concurrency
from tuner.core.machine import Machine
from tuner.jobs.progress import Progress
from tuner.measure.rules import LevelRules
from tuner.measure.trial import Limits, TrialContext, TrialResult, relaunch, run_trial
from tuner.options.groups import LoadOptions
from tuner.servers.installation import find_triton
from tuner.servers.process import ProcessLauncher
from tuner.space.candidate import Candidate
from tuner.space.space import SearchSpace

LIMITS = Limits(launch_s=60.0, first_answer_s=10.0, until=math.inf)
ATTEMPTS = 3


def main() -> None:
    """Record, and say where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", choices=MODELS, default=None)
    parser.add_argument("--passes", type=int, default=3, help="an odd number")
    parser.add_argument("--highest", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=1.2, help="of each load; less tells no speed of the machine")
    parser.add_argument("--keep", type=Path, help="where the passes stay")
    asked = parser.parse_args()
    GRIDS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        keep = asked.keep or Path(temporary)
        for number, model in product(range(asked.passes), asked.model or MODELS):
            folder = keep / f"pass-{number}"
            folder.mkdir(parents=True, exist_ok=True)
            if not recorded(model, folder).exists():
                began = time.monotonic()
                record(model, asked.highest, asked.seconds, seed=number).write(recorded(model, folder))
                print(f"{model}, pass {number}: {time.monotonic() - began:.0f} s")
        for model in asked.model or MODELS:
            passes = [Grid.read(recorded(model, keep / f"pass-{number}")) for number in range(asked.passes)]
            Grid.median(passes).write(recorded(model))


def record(model: str, highest: int, seconds: float, seed: int) -> Grid:
    """Measure every candidate of a model once, in an order that the seed decides."""
    repository = ModelRepository.open(MODELS[model])
    rules = LevelRules(min_s=seconds, max_s=seconds)
    with tempfile.TemporaryDirectory() as folder:
        staged = stage(repository, Path(folder) / "repository")
        launcher = ProcessLauncher(find_triton())
        # The first level is the trial's, which tells what launching takes; the others come from a second launch.
        trial_context = TrialContext(launcher, staged, model, LoadOptions(), rules, max_concurrency=1)
        loads = [Concurrency(2**power) for power in range(1, int(math.log2(highest)) + 1)]

        def measure(candidate: Candidate, number: int) -> TrialResult:
            place = Path(folder) / "trial"
            for _ in range(ATTEMPTS):
                shutil.rmtree(place, ignore_errors=True)
                trial = run_trial(trial_context, candidate, number, place, limits=LIMITS, progress=Progress())
                if trial.failure is None:
                    break
            else:
                raise SystemExit(f"{candidate}: failed {ATTEMPTS} times")
            with relaunch(trial_context, candidate.patch, place, limits=LIMITS) as session:
                points = [session.measure(load) for load in loads]
            return trial.model_copy(update={"curve": (*trial.curve, *points)})

        config = repository.model(model).config or ModelConfig.parse("", model)
        baseline = measure(Candidate({}, config), 0)
        effective = ModelConfig.parse(baseline.effective_config or "", "the effective config")
        space = SearchSpace.build(SPACE, config, effective, Machine(cpus=None, gpus=(), processor=""))
        others = [each for each in space.assignments() if each != space.baseline]
        random.Random(seed).shuffle(others)  # noqa: S311 (no secret)
        trials = [baseline.model_copy(update={"parameters": space.baseline})]
        for number, assignment in enumerate(track(others, model), 1):
            trials.append(measure(space.candidate(assignment), number))
    return Grid(model, str(launcher.machine), tuple(trials))


if __name__ == "__main__":
    main()
