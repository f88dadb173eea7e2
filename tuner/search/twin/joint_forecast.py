"""Predictions for candidates by the simulator times learnt factors, for the choice of the next launch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tuner.core.slo import Percentile
from tuner.search.twin.effects import Effects
from tuner.search.twin.error_model import place
from tuner.search.twin.factor_model import SAMPLES, FactorModel, Points
from tuner.search.twin.forecast import LARGER_BATCHES, MORE_INSTANCES, Curves, largest_batch, loads_of
from tuner.search.twin.observed_trial import ObservedTrial
from tuner.search.twin.scheduling import Scheduling
from tuner.search.twin.twin import Twin
from tuner.space.candidate import Assignment

# Points are closer than 1 in these coordinates when parameters have similar effects on them.
_BUSY, _BATCH = 1.5, 3.0
# Standard deviation of the logarithm of a measured share of the devices.
_SHARE_NOISE = 0.1
# Where instances want more of the devices than those of any launch: the expected loss beside sharing them, and its
# standard deviation, for each unit of the logarithm. They switch contexts, and take caches from each other.
_CROWDED = 0.25
# What makes throughput higher makes latency lower.
_SIGNS = (1.0, -1.0)
# Levels of a trial that the factors are learnt from.
_LEVELS = 5

Candidate = tuple[Scheduling, Assignment]
"""A scheduling, and the assignment that has the other parameters."""


class JointForecast:
    """Predictions from all trials so far.

    The simulator is fitted to the trials with the model's own values of all parameters that it does not model. The
    factors are learnt from all trials.

    Args:
        trials: The measured trials with their assignments; at least one level must have the server's execution times.
        effects: The parameters that the simulator does not model.
        percentile: The SLO's latency percentile.
        batch_size: Inferences in each request.
        cores: Number of processors that the server may use; see `Twin`.
        seed: The seed of the samples of the factors.
        due_ms: Arrival times of an open loop; see `Twin`.
    """

    def __init__(
        self,
        trials: Sequence[tuple[ObservedTrial, Assignment]],
        effects: Effects,
        percentile: Percentile,
        batch_size: int,
        *,
        cores: int | None,
        seed: int,
        due_ms: NDArray[np.float64] | None = None,
    ) -> None:
        self._unit, self._effects = batch_size, effects
        observed = [trial for trial, _ in trials]
        own = [trial for trial in observed if trial.setting == 0]
        if not any(level.executions for trial in own for level in trial.levels):
            own = observed
        self._setting = own[0].setting
        self.twin = Twin(own, percentile, batch_size, cores, due_ms=due_ms)
        self._most_instances = max(trial.scheduling.instances for trial in observed)
        self._largest_batch = max(largest_batch(trial.scheduling) for trial in observed)
        measured = {level.concurrency for trial in observed for level in trial.levels}
        # Loads that all trials leave out are not measured of a candidate either.
        self._left_out = {load for load in loads_of(max(measured)) if load not in measured and load > min(measured)}
        self._simulated: dict[tuple[Scheduling, int], tuple[float, float]] = {}
        rows, errors, unsure = [], [], []
        for owner, trial in enumerate(observed):
            for level in (trial.levels[number] for number in _some(len(trial.levels))):
                throughput, latency = self._simulate(trial.scheduling, level.concurrency)
                rows.append((trial.scheduling, level.concurrency, owner))
                errors.append((math.log(level.throughput) - throughput, math.log(level.latency_ms) - latency))
                unsure.append((level.throughput_deviation, level.latency_deviation))
        assignments = [assignment for _, assignment in trials]
        self._shares = DeviceShares(self.twin, trials, effects, cores, seed)
        points = self._points(rows, assignments)
        # What is left when all have their devices: a trial in which instances wait for cores tells of fewer instances.
        crowding = np.mean([each.mean for each in self._shares.crowding(points)], axis=0)
        off = np.array(errors) - np.outer(crowding, _SIGNS)
        together = _together(observed, points.owners)
        self._factors = FactorModel(points, effects, off, np.array(unsure), seed, better=_SIGNS, together=together)

    def believe(self, candidates: Sequence[Candidate], highest: int) -> None:
        """Count candidates as measured, with just the results that are expected (kriging believer).

        Expectations stay, and are less uncertain near the candidates. Source: Ginsbourger, Le Riche & Carraro, "Kriging
        is well-suited to parallelize optimization" (2010).

        Args:
            candidates: The candidates.
            highest: The highest load of their curves.
        """
        rows = []
        for owner, (scheduling, _) in enumerate(candidates):
            loads = loads_of(highest, scheduling)
            rows += [(scheduling, loads[number], owner) for number in _some(len(loads))]
            self._most_instances = max(self._most_instances, scheduling.instances)
            self._largest_batch = max(self._largest_batch, largest_batch(scheduling))
        if rows:
            points = self._points(rows, [assignment for _, assignment in candidates])
            # A copy of this forecast keeps what it shares with the original.
            self._factors, self._shares = copy(self._factors), copy(self._shares)
            self._factors.believe(points)
            self._shares.believe(points.settings)

    def curves(self, candidates: Sequence[Candidate], highest: int) -> list[Curves]:
        """Predict the curves of candidates under loads that double up to the highest, once for each sample."""
        loads = [load for load in loads_of(highest) if load not in self._left_out]
        shape = len(candidates), len(loads)
        simulated = np.full((*shape, 2), np.nan)
        rows, at, batches = [], [], []
        for row, (scheduling, _) in enumerate(candidates):
            reached = loads_of(highest, scheduling)
            for column, concurrency in enumerate(load for load in loads if load in reached):
                simulated[row, column] = self._simulate(scheduling, concurrency)
                batches.append(min(largest_batch(scheduling), concurrency * self._unit))
                rows.append((scheduling, concurrency, row))
                at.append((row, column))
        where = tuple(np.array(at).T)
        unsure = LARGER_BATCHES * np.log(np.maximum(1.0, np.array(batches) / self._largest_batch))
        points = self._points(rows, [assignment for _, assignment in candidates])
        allowed = np.log([self.twin.most_per_s(scheduling, self._setting) for scheduling, _ in candidates])
        demands = np.zeros(len(candidates))
        # Where the share of the devices is known, it tells most of what more instances gain.
        more = MORE_INSTANCES / 2 if self._shares.known else MORE_INSTANCES
        curves = []
        for factors, crowding in zip(self._factors.at(points), self._shares.crowding(points), strict=True):
            values, deviations = simulated.copy(), np.full((*shape, 2), np.nan)
            values[where] += factors.mean + np.outer(crowding.mean, _SIGNS)
            instances = more * np.log(np.maximum(1.0, crowding.useful / self._most_instances))
            deviations[where] = np.hypot(factors.deviation, np.hypot(unsure + instances, crowding.deviation)[:, None])
            demands[points.owners] = crowding.demand
            curves.append(
                Curves(
                    np.array(loads, float),
                    values[..., 0],
                    deviations[..., 0],
                    values[..., 1],
                    deviations[..., 1],
                    allowed - demands,
                )
            )
        return curves

    def errors(self, trial: ObservedTrial, assignment: Assignment) -> tuple[float, float]:
        """Root mean squares of the logarithms of measured over predicted throughput and latency of a trial."""
        rows = [(trial.scheduling, level.concurrency, 0) for level in trial.levels]
        simulated = np.array([self._simulate(scheduling, concurrency) for scheduling, concurrency, _ in rows])
        points = self._points(rows, [assignment])
        crowding = np.mean([each.mean for each in self._shares.crowding(points)], axis=0)
        factors = np.mean([each.mean for each in self._factors.at(points)], axis=0)
        factors += np.outer(crowding, _SIGNS)
        measured = np.log([[level.throughput, level.latency_ms] for level in trial.levels])
        throughput, latency = np.sqrt(np.mean(np.square(measured - simulated - factors), axis=0))
        return float(throughput), float(latency)

    def _simulate(self, scheduling: Scheduling, concurrency: int) -> tuple[float, float]:
        """Logarithms of throughput and latency."""
        key = scheduling, concurrency
        if key not in self._simulated:
            predicted = self.twin.predict(scheduling, self._setting, concurrency)
            self._simulated[key] = math.log(predicted.throughput), math.log(predicted.latency_ms)
        return self._simulated[key]

    def _points(self, rows: Sequence[tuple[Scheduling, int, int]], assignments: Sequence[Assignment]) -> Points:
        return Points(
            np.array([self._place(scheduling, concurrency) for scheduling, concurrency, _ in rows]),
            np.array([self._busy(scheduling, concurrency) for scheduling, concurrency, _ in rows]),
            np.array([owner for _, _, owner in rows]),
            self._effects.places(assignments),
        )

    def _place(self, scheduling: Scheduling, concurrency: int) -> tuple[float, ...]:
        """Coordinates of scheduling and load; a batch is no larger than the load, whatever its limit."""
        most = concurrency * self._unit
        reached = replace(
            scheduling,
            max_batch_size=min(scheduling.max_batch_size, most),
            preferred=tuple(min(size, most) for size in scheduling.preferred),
        )
        return place(reached, 0, concurrency)[:-1]

    def _busy(self, scheduling: Scheduling, concurrency: int) -> tuple[float, float]:
        """Coordinates of the busy instances, and of their batches."""
        busy = min(scheduling.instances, concurrency)
        batch = min(largest_batch(scheduling), max(1.0, concurrency * self._unit / busy))
        return math.log2(busy) / _BUSY, math.log2(batch) / _BATCH


@dataclass(frozen=True)
class Crowding:
    """How instances share the devices, by one sample.

    Attributes:
        mean: (n,) expected logarithm of how much quicker than simulated each point is.
        deviation: (n,) its standard deviation.
        useful: (n,) the most busy instances that may have what they need of the devices.
        demand: (n,) the logarithm of the least device time of an inference that is likely, over the simulated one.
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    useful: NDArray[np.float64]
    demand: NDArray[np.float64]


class DeviceShares:
    """The share of the processors or GPUs that one busy instance takes, by the parameters that are not simulated.

    It says how many instances can be busy before they slow each other down, which one launch with few instances tells.

    Args:
        twin: The simulator.
        trials: The measured trials with their assignments.
        effects: The parameters that the simulator does not model.
        cores: Number of processors that the server may use; None: all of the machine.
        seed: The seed of the samples.
    """

    def __init__(
        self,
        twin: Twin,
        trials: Sequence[tuple[ObservedTrial, Assignment]],
        effects: Effects,
        cores: int | None,
        seed: int,
    ) -> None:
        known = [(share, trial, assignment) for trial, assignment in trials if (share := _share(trial, cores))]
        own = [share for share, trial, _ in known if trial.setting == 0]
        self._own = math.log(max(own)) if own else 0.0
        # By how much the instances of a launch wanted more than there is; unknown without measurements.
        wanted = [max(1.0, share * trial.scheduling.instances) for share, trial, _ in known]
        self._most_over = math.log(max(wanted, default=math.inf))
        self._model: FactorModel | None = None
        if own and effects:
            logs = np.array([[math.log(share) - self._own, _demand(twin, trial)] for share, trial, _ in known])
            points = _points_of_settings(effects.places([assignment for _, _, assignment in known]))
            self._model = FactorModel(points, effects, logs, np.full_like(logs, _SHARE_NOISE), seed)

    @property
    def known(self) -> bool:
        """Whether it is known for the model's own values."""
        return self._model is not None

    def believe(self, settings: NDArray[np.int64]) -> None:
        """Count launches of other settings as measured, with just the expected shares; see `Effects.places`."""
        if self._model is not None:
            self._model = copy(self._model)
            self._model.believe(_points_of_settings(settings))

    def crowding(self, points: Points) -> list[Crowding]:
        """How instances share the devices at points, for each sample."""
        busy = 2 ** (_BUSY * points.busy[:, 0])
        own = np.log(np.maximum(1.0, math.exp(self._own) * busy))
        if self._model is None:
            lost = self._lost(own)
            return [Crowding(-lost, lost, busy, np.zeros(len(busy)))] * SAMPLES
        crowdings = []
        for shares in self._model.at(_points_of_settings(points.settings)):
            mean, deviation = shares.mean[points.owners, 0], shares.deviation[points.owners, 0]
            each = [np.exp(np.minimum(0.0, self._own + mean + side * deviation)) for side in (-1, 0, 1)]
            over = np.array([np.log(np.maximum(1.0, share * busy)) for share in each])
            logs, lost = own - over, self._lost(over[1])
            useful = np.minimum(busy, 1 / each[0])
            least = (shares.mean - shares.deviation)[points.owners, 1]
            deviation = np.hypot(logs.std(axis=0) * math.sqrt(1.5), lost)
            crowdings.append(Crowding(logs.mean(axis=0) - lost, deviation, useful, least))
        return crowdings

    def _lost(self, over: NDArray[np.float64]) -> NDArray[np.float64]:
        """The expected loss where instances want more of the devices than there is, by the logarithm of the ratio."""
        lost: NDArray[np.float64] = _CROWDED * np.maximum(0.0, over - self._most_over)
        return lost


def _share(trial: ObservedTrial, cores: int | None) -> float | None:
    """The share of the devices that one busy instance takes; None: unknown."""
    shares = []
    for level in trial.levels:
        executions = sum(each.count for each in level.executions)
        if not executions:
            continue
        service_ms = sum(each.count * each.service_ms for each in level.executions) / executions
        for work, devices in ((level.cores_work, cores or level.cores), (level.gpus_work, level.gpus)):
            if work and devices:
                shares.append(work.device_ms / service_ms / devices)
    # While instances wait for the devices, each takes less than it could.
    return min(1.0, max(shares)) if shares else None


def _demand(twin: Twin, trial: ObservedTrial) -> float:
    """The logarithm of the device time of an execution over the simulated one."""
    off = [each for level in trial.levels if (each := twin.demand_off(level)) is not None]
    return float(np.median(off)) if off else 0.0


def _together(trials: Sequence[ObservedTrial], owners: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """(2, n, n) covariances of the points of trials, which share the unknown rest of their host's effect; None: 0."""
    unsure = np.array([trial.host_deviations for trial in trials])[owners]
    if not unsure.any():
        return None
    hosts = np.array([trial.host for trial in trials])[owners]
    same = hosts[:, None] == hosts[None]
    together: NDArray[np.float64] = np.array([np.outer(each, each) * same for each in unsure.T])
    return together


def _some(levels: int) -> list[int]:
    """The numbers of the levels that the factors are learnt from."""
    numbers: list[int] = np.unique(np.linspace(0, levels - 1, _LEVELS).round().astype(int)).tolist()
    return numbers


def _points_of_settings(settings: NDArray[np.int64]) -> Points:
    """Points that differ in nothing but the parameters that are not simulated."""
    count = len(settings)
    return Points(np.zeros((count, 1)), np.zeros((count, 1)), np.arange(count), settings)
