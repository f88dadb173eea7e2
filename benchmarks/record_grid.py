"""Records the grids that `search.py` replays searches against: every candidate of a small space, on the real Triton.

Candidates come in random order, so that what the machine does meanwhile falls on all alike, and each is measured at
every doubling of the load from one request at a time to `--highest`, whatever it gains. A pass takes about ten
minutes a model, and wants a quiet machine; of several passes the medians are written, each launch corrected by how fast
the machine was. Passes stay in `--keep`, and those that are there are not made again.

    python benchmarks/record_grid.py [--model mlp]... [--passes 3] [--highest 256] [--seconds 1.2] [--keep FOLDER]

The space of `ort` has 576 candidates. About half an hour is enough for one pass with short levels, each at four times
the load of the one before. Its two passes are written as they are, each to a grid of its own. It needs `onnx` and
`onnxruntime` beside tritontune's extra `server`:

    pip install onnx onnxruntime
    python benchmarks/record_grid.py --model ort --passes 2 --seconds 0.35 --highest 64 --step 4 --keep FOLDER

`--candidates 10` tries it out: it records so many candidates, says how long they took, and writes no grid. With
`--keep`, a recording that is stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import math
import random
import shutil
import tempfile
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from grid import AGAIN, ANY_MACHINE, GRIDS, MODELS, SPACE, SPACES, Grid, recorded, space_of
from rich.progress import track

from tuner.config.config import ModelConfig
from tuner.config.repository import ModelRepository
from tuner.config.staging import stage
from tuner.core.atomic_file import write_atomically
from tuner.core.loads import Concurrency
from tuner.measure.points import OperatingPoint
from tuner.measure.rules import LevelRules
from tuner.measure.trial import TrialResult
from tuner.measure.work import (
    UNHEARD,
    Limits,
    LoadPlan,
    Loads,
    Outcome,
    Sweep,
    TrialContext,
    TrialTerms,
    Work,
    carry_out,
)
from tuner.options.groups import LoadOptions
from tuner.servers.installation import find_triton
from tuner.servers.process import ProcessLauncher
from tuner.space.candidate import Candidate

LIMITS = Limits(launch_s=60.0, first_answer_s=10.0, total_s=math.inf)
ATTEMPTS = 3


@dataclass(frozen=True)
class Recording:
    """How a grid is recorded.

    Attributes:
        seconds: Of each load.
        loads: The loads of each candidate.
        candidates: Number of candidates besides the baseline; None: all.
    """

    seconds: float
    loads: tuple[Concurrency, ...]
    candidates: int | None

    @classmethod
    def of(cls, asked: argparse.Namespace) -> Recording:
        """What the command line asks for."""
        count = int(math.log(asked.highest, asked.step) + 1e-9) + 1
        return cls(asked.seconds, tuple(Concurrency(asked.step**power) for power in range(count)), asked.candidates)


def main() -> None:
    """Record, and say where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", choices=MODELS, default=None)
    parser.add_argument("--passes", type=int, default=3, help="an odd number; 2 of ort")
    parser.add_argument("--highest", type=int, default=256)
    parser.add_argument("--step", type=int, default=2, help="of the load from level to level, as a factor")
    parser.add_argument("--seconds", type=float, default=1.2, help="of each load; less tells no speed of the machine")
    parser.add_argument("--candidates", type=int, help="only so many, to try it out")
    parser.add_argument("--keep", type=Path, help="where the passes stay")
    asked = parser.parse_args()
    recording = Recording.of(asked)
    GRIDS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        keep = asked.keep or Path(temporary)
        for number, model in product(range(asked.passes), asked.model or MODELS):
            folder = keep / f"pass-{number}"
            folder.mkdir(parents=True, exist_ok=True)
            if not recorded(model, folder).exists():
                began = time.monotonic()
                grid = record(model, recording, number, folder)
                took_s = time.monotonic() - began
                print(f"{model}, pass {number}: {len(grid.trials)} candidates, {took_s:.0f} s")
                if asked.candidates is None:
                    grid.write(recorded(model, folder))
        for model in [] if asked.candidates is not None else asked.model or MODELS:
            passes = [Grid.read(recorded(model, keep / f"pass-{number}")) for number in range(asked.passes)]
            if model == "ort":
                for name, each in zip((model, AGAIN), passes, strict=True):
                    each.write(recorded(name))
            else:
                Grid.median(passes).write(recorded(model))


def record(model: str, recording: Recording, seed: int, folder: Path) -> Grid:
    """Measure every candidate of a model once, in an order that the seed decides.

    Each trial is kept in the folder, until all are there.
    """
    repository = ModelRepository.open(MODELS[model])
    rules = LevelRules(min_s=recording.seconds, max_s=recording.seconds)
    spec = SPACES.get(model, SPACE)
    kept = folder / f"{model}-trials"
    kept.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        staged = stage(repository, Path(temporary) / "repository")
        launcher = ProcessLauncher(find_triton())
        terms = TrialTerms(model, LoadOptions(), rules, max_concurrency=1)
        trial_context = TrialContext(terms, launcher, staged)
        place = Path(temporary) / "trial"

        def launched(candidate: Candidate, plan: LoadPlan) -> Outcome:
            shutil.rmtree(place, ignore_errors=True)
            return carry_out(Work(terms, candidate.patch, plan, LIMITS), trial_context, place, UNHEARD)

        def curve(candidate: Candidate) -> tuple[OperatingPoint, ...]:
            for _ in range(ATTEMPTS):
                outcome = launched(candidate, Loads(recording.loads))
                if outcome.failure is None:
                    return outcome.points
            raise SystemExit(f"{candidate}: failed {ATTEMPTS} times")

        def measure(candidate: Candidate, number: int) -> TrialResult:
            file = kept / f"{number}.json"
            if file.exists():
                return TrialResult.model_validate_json(file.read_bytes())
            trial = first.model_copy(
                update={
                    "number": number,
                    "parameters": candidate.parameters,
                    "config": candidate.config.text,
                    "effective_config": candidate.config.text,
                    "curve": curve(candidate),
                }
            )
            write_atomically(file, trial.model_dump_json())
            return trial

        config = repository.model(model).config or ModelConfig.parse("", model)
        first = TrialResult.of(Candidate({}, config), 0, launched(Candidate({}, config), Sweep()))
        if first.failure is not None:
            raise SystemExit(f"{model}: {first.failure.message}")
        effective = ModelConfig.parse(first.effective_config or "", "the effective config")
        space = space_of(spec, config, effective, ANY_MACHINE)
        others = [each for each in space.assignments() if each != space.baseline]
        random.Random(seed).shuffle(others)  # noqa: S311 (no secret)
        candidates = [Candidate(space.baseline, config), *map(space.candidate, others[: recording.candidates])]
        trials = [measure(candidate, number) for number, candidate in enumerate(track(candidates, model))]
        trials[0] = trials[0].model_copy(update={"effective_config": first.effective_config})
    return Grid(model, str(launcher.machine), tuple(trials), spec=spec)


if __name__ == "__main__":
    main()
