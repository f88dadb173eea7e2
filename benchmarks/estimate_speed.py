"""How much processor time `tritontune estimate` takes on a study of 10 trials, all threads together.

The study holds trials of the recorded grid of the example model, in the default space for a machine of 4 cores.
Each run is a process of its own; the first one of each program, which may compile the simulator, does not count.
Programs take turns, so that a busy machine slows all alike. Prints each program's median, and its ratio to the last.

    python benchmarks/estimate_speed.py [--runs 5] [--trials 10] [--against OTHER/.venv/bin/tritontune]
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from grid import Grid

from tuner.core.machine import Machine
from tuner.core.slo import SLO
from tuner.options.tune_job import TuneJob
from tuner.space.spec import load_space
from tuner.study.provenance import provenance
from tuner.study.run_folder import RunFolder
from tuner.study.study import Identity, Study

_GOAL_S = 3.0
_HERE = Path(sys.executable).with_name("tritontune")
_UNSET = {"PYTHONDONTWRITEBYTECODE", "OMP_NUM_THREADS"}
_ASKED = ("--rate", "5000", "--slo", "p99=40ms", "--json")


def main() -> None:
    """Print the processor time of each program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--against", type=Path, action="append", default=[], help="tritontune of another checkout")
    options = parser.parse_args()
    programs = [*options.against, _HERE]
    with tempfile.TemporaryDirectory() as folder:
        run, bytecode = Path(folder) / "run", Path(folder) / "bytecode"
        run.mkdir()
        _write_study(run, options.trials)
        rounds = [[_processor_s(program, run, bytecode) for program in programs] for _ in range(options.runs + 1)]
    medians = [statistics.median(seconds) for seconds in zip(*rounds[1:], strict=True)]
    for program, median in zip(programs, medians, strict=True):
        print(f"{program}: {median:.2f} s of processor time ({median / medians[-1]:.2f} times the last)")
    verdict = "within" if medians[-1] <= _GOAL_S else "beyond"
    print(f"{options.trials} trials: {verdict} the goal of {_GOAL_S:g} s")


def _write_study(run: Path, trials: int) -> None:
    """A study of the baseline and of trials that are spread over the grid."""
    grid = Grid.of("mlp")
    usable = [trial for trial in grid.trials if trial.failure is None]
    identity = Identity(
        model=grid.model,
        repository="/models",
        files="",
        config=usable[0].config,
        slo=SLO({"p99": 40.0}),
        space=load_space("default").model_dump_json(by_alias=True),
        requests={"batch_size": 1},
        server="",
        machine=grid.machine,
        seed=0,
    )
    study = Study.create_or_resume(RunFolder(run).database, identity)
    machine = Machine(cpus=4, gpus=(), processor="")
    study.begin(provenance(TuneJob(repository=Path("/models"), slo=identity.slo), machine))
    chosen = [usable[round(place * (len(usable) - 1) / (trials - 1))] for place in range(trials)]
    for number, trial in enumerate(chosen):
        study.add(trial.model_copy(update={"number": number}), grid.space)


def _processor_s(program: Path, run: Path, bytecode: Path) -> float:
    """Processor seconds of one estimate, with modules that were compiled before, as installers do."""
    environment = {name: value for name, value in os.environ.items() if name not in _UNSET}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [program, "estimate", run, *_ASKED],
        check=True,
        capture_output=True,
        env={**environment, "PYTHONPYCACHEPREFIX": str(bytecode)},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
