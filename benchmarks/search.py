"""How many launches a search takes: searches replayed against grids, recorded on a real Triton or made from a law.

Each launch brings the recorded curve of a candidate, slower or quicker by `--noise` as a whole and by as much at each
load (log-normal), so that no sampler sees the truth. After each launch counts what a candidate is truly worth: its
throughput within the SLO over that of the best candidate of the grid. Two candidates count: the one that looks best,
and the truly best one that was launched, which a verification of the finalists would find. Without an SLO, both are the
share of the whole grid's hypervolume that all launched ones have. The limits are 3, 10 and 30 times the baseline's
median latency with one request at a time. Prints medians over seeds. Without `--limit`, it also prints how well the
twin foresees the candidates of the grid after six launches, beside how well a launch of each would tell that, by how
much those differ that the grid is the median of.

`--sampler oracle` knows the truth, and launches the best candidates in order. `--sampler smac` compares with SMAC3,
which `pip install smac` installs, and `--sampler gp` needs PyTorch.

The two recordings of `ort` have one short launch of each candidate. Launches of candidates that cannot differ do so by
30 %, and the best of 576 is a lucky one. So the medians of such candidates over both recordings count (see
`alike_in_ort`). `--as-recorded` takes each launch of the first recording as the truth.

    python benchmarks/search.py [--seeds 40] [--launches 14] [--noise 0.04] [--model mlp]... [--sampler twin]...
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from itertools import product
from typing import cast, get_args

import numpy as np
from grid import AGAIN, MODELS, SIMULATED, Grid, alike_in_ort, recorded, slower
from numpy.typing import NDArray
from optuna.trial import FrozenTrial
from rich import box
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from tuner.core.slo import SLO, Percentile
from tuner.measure.trial import TrialResult
from tuner.options.tune_job import SamplerName
from tuner.recommend.front import hypervolume, reference_latency_ms, usable_points
from tuner.recommend.host_effects import NO_HOSTS, HostEffects
from tuner.search.choose_sampler import choose_sampler, first_candidates
from tuner.search.gains import within_limit
from tuner.search.goal import Goal
from tuner.search.samplers import ALL_SEEN, NoMore, Pending, Sampler, TrialHistory
from tuner.search.scheduling_map import SchedulingMap
from tuner.search.twin.effects import Effects
from tuner.search.twin.forecast import Curves
from tuner.search.twin.joint_forecast import JointForecast
from tuner.search.twin.observed_trial import observed_trial
from tuner.space.candidate import Assignment, key_of
from tuner.study.objectives import as_optuna_trial

PERCENTILE: Percentile = "p99"
LIMITS = (3, 10, 30)
SAMPLERS = ("twin", "tpe", "random")
SMAC, ORACLE = "smac", "oracle"
SHOWN = (2, 3, 4, 5, 6, 8, 10, 14)
# How well the twin foresees candidates after so many launches, and the most candidates for that.
FORESEEN_AFTER, FORESEEN = 6, 200
# Searches that tell that.
FORESEERS = 10
TOLD = ("looks best", "is the best launched")


@dataclass
class Replay:
    """A search so far.

    Attributes:
        trials: As they were measured, with noise.
    """

    grid: Grid
    slo: SLO
    trials: list[TrialResult] = field(default_factory=list)
    host_effects: HostEffects = NO_HOSTS

    def optuna_trials(self) -> Sequence[FrozenTrial]:
        """As Optuna's samplers see them."""
        return [as_optuna_trial(trial, self.grid.space, self.slo, {}) for trial in self.trials]


@dataclass(frozen=True)
class Case:
    """One search: a model, a limit (as a multiple; None: the hypervolume), a sampler."""

    model: str
    limit: int | None
    sampler: str

    @cached_property
    def slo(self) -> SLO:
        """The limit in ms."""
        if self.limit is None:
            return SLO()
        alone = grid_of(self.model).trials[0].curve[0].latency_ms["p50"].value
        return SLO({PERCENTILE: round(self.limit * alone, 1)})


AS_RECORDED = "SEARCH_AS_RECORDED"
"""The environment variable that tells all processes to take grids as they were recorded."""


@cache
def grid_of(model: str) -> Grid:
    """A grid, read once a process."""
    grid = Grid.of(model)
    return grid.pooled(alike_in_ort, Grid.of(AGAIN)) if model == "ort" and AS_RECORDED not in os.environ else grid


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--launches", type=int, default=max(SHOWN))
    parser.add_argument("--noise", type=float, default=0.04)
    parser.add_argument("--workers", type=int, help="number of processes; default: one for each core")
    parser.add_argument("--model", action="append", choices=[*MODELS, *SIMULATED], default=None)
    parser.add_argument("--sampler", action="append", choices=[*get_args(SamplerName), SMAC, ORACLE], default=None)
    parser.add_argument("--limit", action="append", type=int, choices=LIMITS, help="default: all, and the hypervolume")
    parser.add_argument("--as-recorded", action="store_true")
    asked = parser.parse_args()
    console = Console(width=120)
    models = asked.model or [model for model in (*MODELS, *SIMULATED) if recorded(model).exists()]
    samplers = asked.sampler or SAMPLERS
    if asked.as_recorded:
        os.environ[AS_RECORDED] = "1"
    cases = [Case(m, limit, s) for m in models for limit in asked.limit or (*LIMITS, None) for s in samplers]
    shown = [count for count in SHOWN if count <= asked.launches]
    # A core for each search: gp's threads, which are torch's, would be in each other's way and take ten times as long.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(asked.workers) as pool:
        search = partial(shares, launches=asked.launches, noise=asked.noise)
        told = {case: np.array(list(pool.map(partial(search, case), range(asked.seeds)))) for case in cases}
        for model, (number, what) in product(models, enumerate(TOLD)):
            told_of_model = {c: t[..., number] for c, t in told.items() if c.model == model}
            console.print(_table(model, what, told_of_model, shown))
        for sampler, (number, what) in product(samplers, enumerate(TOLD)):
            within = np.concatenate([t[..., number] for c, t in told.items() if c.sampler == sampler and c.limit])
            medians = ", ".join(f"{np.median(within[:, count - 1]):.1%} after {count}" for count in shown)
            console.print(f"{sampler}: what {what} has of the best throughput, over all models and limits: {medians}")
        for model in models if "twin" in samplers and not asked.limit else []:
            seeds = range(min(asked.seeds, FORESEERS))
            errors = np.array(list(pool.map(partial(predicted, model, asked.noise), seeds)))
            throughput, latency, rank = np.median(errors, axis=0)
            launch_off = np.expm1(grid_of(model).launch_off)
            console.print(
                f"{model}: predicted after {FORESEEN_AFTER} launches: throughput off by {throughput:.1%}, "
                f"p99 by {latency:.1%}, rank correlation {rank:.3f}; "
                f"a launch of the very candidate is off by {launch_off[0]:.1%} and {launch_off[1]:.1%}"
            )


def shares(case: Case, seed: int, *, launches: int, noise: float) -> list[tuple[float, float]]:
    """What the search has reached after each launch, as shares of what there is; see `TOLD`."""
    replay = Replay(grid_of(case.model), case.slo)
    worth = _worth(case)
    reached: list[tuple[float, float]] = []
    for trial in searched(case, seed, replay, launches, noise):
        replay.trials.append(trial)
        reached.append(worth(replay))
    return reached + reached[-1:] * (launches - len(reached))


def searched(case: Case, seed: int, replay: Replay, launches: int, noise: float) -> Iterator[TrialResult]:
    """The trials of a search, which the caller adds to the replay."""
    noises = np.random.default_rng([seed, 7])
    sampler = sampler_of(case, replay.grid, seed)
    yield noisy(replay.grid.trials[0], 0, noises, noise)
    for number in range(1, launches):
        proposed = sampler.propose(replay, [trial.parameters for trial in replay.trials])
        if isinstance(proposed, NoMore):
            return
        yield noisy(replay.grid.launched(proposed), number, noises, noise)


class Oracle:
    """Launches the best candidates in order, as it knows the truth."""

    def __init__(self, best_first: Sequence[TrialResult]) -> None:
        self._best_first = best_first

    def propose(
        self, history: TrialHistory, seen: Collection[Assignment], pending: Sequence[Pending] = ()
    ) -> Assignment | NoMore:
        """See `Sampler`."""
        del history, pending
        return next((each.parameters for each in self._best_first if each.parameters not in seen), ALL_SEEN)


def sampler_of(case: Case, grid: Grid, seed: int) -> Sampler:
    """The sampler of a case."""
    if case.sampler == ORACLE:
        return Oracle(sorted(grid.trials, key=lambda trial: -within(trial, case.slo)) if case.limit else grid.trials)
    if case.sampler != SMAC:
        name = cast("SamplerName", case.sampler)
        return choose_sampler(name, grid.space, seed, Goal(case.slo, 1, grid.highest), note=lambda _text: None)
    from smac_sampler import SmacSampler  # noqa: PLC0415 (only where SMAC is installed)

    reference = reference_latency_ms(grid.trials[0], PERCENTILE, None)

    def value(trial: TrialResult) -> float:
        if case.limit is None:
            return hypervolume(usable_points([trial]), PERCENTILE, reference)
        return within(trial, case.slo)

    return SmacSampler(grid.space, seed, value, first_candidates(grid.space))


def _worth(case: Case) -> Callable[[Replay], tuple[float, float]]:
    grid = grid_of(case.model)
    if case.limit is None:
        reference = reference_latency_ms(grid.trials[0], PERCENTILE, None)
        whole = hypervolume(usable_points(grid.trials), PERCENTILE, reference)

        def covered(replay: Replay) -> tuple[float, float]:
            true = [grid.by_assignment[key_of(trial.parameters)] for trial in replay.trials]
            share = hypervolume(usable_points(true), PERCENTILE, reference) / whole
            return share, share

        return covered
    best = max(within(trial, case.slo) for trial in grid.trials)

    def picked(replay: Replay) -> tuple[float, float]:
        true = [within(grid.by_assignment[key_of(trial.parameters)], case.slo) / best for trial in replay.trials]
        looks = [within(trial, case.slo) for trial in replay.trials]
        return true[int(np.argmax(looks))], max(true)

    return picked


def within(trial: TrialResult, slo: SLO) -> float:
    """A curve's throughput within the limit, which it meets between two of its loads."""
    if not trial.curve:
        return 0.0
    measured = np.log([[point.throughput.value, point.latency_ms[PERCENTILE].value] for point in trial.curve]).T
    loads, sure = np.array([point.load.level for point in trial.curve]), np.zeros((1, len(trial.curve)))
    curve = Curves(loads, measured[:1], sure, measured[1:], sure, np.array([math.inf]))
    return max(0.0, float(within_limit(curve, slo.root[PERCENTILE], seed=0)[0, 0]))


def noisy(trial: TrialResult, number: int, noises: np.random.Generator, noise: float) -> TrialResult:
    """A trial as another launch would have told of it."""
    launch = noises.normal(0, noise)
    curve = tuple(slower(point, math.exp(launch + noises.normal(0, noise))) for point in trial.curve)
    return trial.model_copy(update={"number": number, "curve": curve})


def predicted(model: str, noise: float, seed: int) -> tuple[float, float, float]:
    """Median errors of throughput and p99 of all that was not launched, and the rank correlation of throughput."""
    case = Case(model, LIMITS[1], "twin")
    replay = Replay(grid_of(model), case.slo)
    for trial in searched(case, seed, replay, FORESEEN_AFTER, noise):
        replay.trials.append(trial)
    schedulings = SchedulingMap(replay.grid.space)
    observed = [
        (told, trial.parameters)
        for trial in replay.trials
        if (told := observed_trial(trial, PERCENTILE, schedulings.of(trial.parameters)[1]))
    ]
    cores = replay.grid.space.machine.cpus
    forecast = JointForecast(observed, Effects(schedulings.unknown), PERCENTILE, 1, cores=cores, seed=seed)
    launched = {key_of(trial.parameters) for trial in replay.trials}
    others = [trial for trial in replay.grid.trials if key_of(trial.parameters) not in launched]
    others = random.Random(seed).sample(others, min(len(others), FORESEEN))  # noqa: S311 (no secret)
    samples = forecast.curves(
        [(schedulings.of(each.parameters)[0], each.parameters) for each in others], replay.grid.highest
    )
    throughput = np.mean([each.throughput for each in samples], axis=0)
    latency = np.mean([each.latency for each in samples], axis=0)
    measured: list[NDArray[np.float64]] = []
    expected: list[NDArray[np.float64]] = []
    for row, trial in enumerate(others):
        for column, concurrency in enumerate(samples[0].concurrency):
            at = [point for point in trial.curve if point.load.level == concurrency]
            if at and not math.isnan(throughput[row, column]):
                measured.append(np.log([at[0].throughput.value, at[0].latency_ms[PERCENTILE].value]))
                expected.append(np.array([throughput[row, column], latency[row, column]]))
    off = np.expm1(np.median(np.abs(np.array(measured) - np.array(expected)), axis=0))
    rank = spearmanr(np.array(measured)[:, 0], np.array(expected)[:, 0]).statistic
    return float(off[0]), float(off[1]), float(rank)


def _table(model: str, what: str, told: dict[Case, NDArray[np.float64]], shown: Sequence[int]) -> Table:
    seeds = len(next(iter(told.values())))
    title = f"{model}: share of the best, of what {what} after so many launches, medians of {seeds} searches"
    table = Table(box=box.SIMPLE_HEAD, title=title)
    table.add_column("goal")
    table.add_column("sampler")
    for count in shown:
        table.add_column(str(count), justify="right")
    for case, reached in told.items():
        goal = "hypervolume" if case.limit is None else f"p99 <= {case.slo.limits[0].limit_ms:g} ms"
        medians = (statistics.median(reached[:, count - 1]) for count in shown)
        table.add_row(goal, case.sampler, *(f"{median:.1%}" for median in medians))
    return table


if __name__ == "__main__":
    main()
