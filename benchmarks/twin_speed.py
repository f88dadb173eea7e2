"""How long the twin takes to predict a thousand candidates, each with its whole curve, on one core.

The candidates are those of the default space for the example model on a machine of 4 cores, as many as are asked for;
the twin is fitted to the recorded grid of that model. Prints the seconds of the fit and of the curves, the medians of
some runs, once the code is compiled.

    python benchmarks/twin_speed.py [--candidates 1000] [--runs 5]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time

from grid import Grid

from tuner.core.machine import Machine
from tuner.search.scheduling_map import SchedulingMap
from tuner.search.twin.effects import Effects
from tuner.search.twin.joint_forecast import JointForecast
from tuner.search.twin.observed_trial import observed_trial
from tuner.space.space import SearchSpace
from tuner.space.spec import load_space

HIGHEST = 256
FITTED_TO = 4


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=1_000)
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    grid = Grid.of("mlp")
    machine = Machine(cpus=4, gpus=(), processor="")
    space = SearchSpace.build(load_space("default"), grid.space.base, grid.space.effective, machine)
    schedulings = SchedulingMap(space)
    candidates = [(schedulings.of(each)[0], each) for each in itertools.islice(space.assignments(), asked.candidates)]
    observed = [(observed_trial(trial, "p99"), trial.parameters) for trial in grid.trials[:FITTED_TO]]
    trials = [(trial, parameters) for trial, parameters in observed if trial]
    fits, curves = [], []
    for _ in range(asked.runs + 1):
        began = time.process_time()
        forecast = JointForecast(trials, Effects(()), "p99", 1, cores=None, seed=0)
        fitted = time.process_time()
        forecast.curves(candidates, HIGHEST)
        fits.append(fitted - began)
        curves.append(time.process_time() - fitted)
    print(
        f"{len(candidates)} candidates: fitted in {statistics.median(fits[1:]):.2f} s, "
        f"curves up to concurrency {HIGHEST} in {statistics.median(curves[1:]):.2f} s of processor time"
    )


if __name__ == "__main__":
    main()
