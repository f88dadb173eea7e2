"""How much faster or slower each host is than the others of its class: a random-effects model of relaunches.

Hosts of one GPU differ by some percent (clocks, cooling, processor, NUMA). A launch's speed is the sum of what its
config has, what its host has, and what the launch has. The terms of the hosts are normally distributed around 0. Their
deviation is integrated out, under a half-Cauchy prior, as there are few hosts (Gelman 2006, "Prior distributions for
variance parameters in hierarchical models"). So is the deviation between launches, under the prior of `Spread`. All
effects are logarithms of factors.

The config of a finalist won by its launch in the search, so this launch tells nothing of the host; the baseline's does.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tuner.core.objectives import Objective
from tuner.core.record import Record
from tuner.core.slo import Percentile
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.recommend.curve import latency_ms_at, throughput_at
from tuner.recommend.gain import LAUNCH_DEVIATION
from tuner.recommend.speed import MOST_DEVIATION, PRIOR_FREEDOM, Speed
from tuner.recommend.verification import Verification

# Scale of the prior of the deviation between hosts, and the deviations between hosts and launches that are considered.
_HOSTS = 0.05
_HOST_DEVIATIONS = np.concatenate([[0.0], np.geomspace(0.003, 0.6, 28)])
_LAUNCH_DEVIATIONS = np.geomspace(0.003, 0.8, 28)
# Standard deviation of the effect of a class of hosts on which no baseline was launched.
_CLASSES = 0.5

_Floats = NDArray[np.float64]


class BaselineLaunch(Record):
    """A launch of the baseline on a host.

    Attributes:
        curve: Its points, in order of load.
        at: When it ended, in seconds since the epoch.
    """

    curve: tuple[OperatingPoint, ...]
    at: float


class HostRecord(Record):
    """A host of a study.

    Attributes:
        name: Its name, unique in the study.
        host_class: The class of hosts that it is compared with; empty: that of the reference host.
        facts: What was found of it, such as the names of its GPUs.
        launches: The launches of the baseline on it in the search, in order of time, without the first trial.
        drained: Why it gets no more work, in one line; None: it does.
    """

    name: str
    host_class: str = ""
    facts: Mapping[str, Any] = Field(default_factory=dict)
    launches: tuple[BaselineLaunch, ...] = ()
    drained: str | None = None


@dataclass(frozen=True)
class HostLaunch:
    """A launch of a config that was launched elsewhere, too.

    Attributes:
        trial: The number of the config's trial.
        host: The host.
        throughput: Logarithm of its throughput over that of the trial, under the same loads.
        latency: The same of its latency at a percentile.
        points: Its points.
    """

    trial: int
    host: str
    throughput: float
    latency: float
    points: tuple[OperatingPoint, ...]


def launches_of_hosts(
    records: Iterable[HostRecord],
    trials: Sequence[TrialResult],
    verified: Iterable[Verification],
    percentile: Percentile = "p99",
) -> tuple[HostLaunch, ...]:
    """The launches of the baseline, in order of time, then the relaunches of the finalists, in order of the rounds.

    Args:
        records: The hosts.
        trials: The trials of a study, the baseline first.
        verified: The relaunched points.
        percentile: The latency percentile.
    """
    curves = {trial.number: trial.curve for trial in trials if trial.curve}
    launches = [(0, trial.host, trial.curve) for trial in trials[:1]]
    began = [(launch.at, record.name, launch.curve) for record in records for launch in record.launches]
    launches += [(0, host, curve) for _, host, curve in sorted(began, key=lambda launch: launch[0])]
    by_round = defaultdict[tuple[int, int, str], list[OperatingPoint]](list)
    for verification in verified:
        for number, host, point in zip(
            verification.numbers, verification.hosts_of_rounds, verification.rounds, strict=False
        ):
            by_round[number, verification.trial, host].append(point)
    launches += [(trial, host, tuple(by_round[at])) for at in sorted(by_round) for _, trial, host in [at]]
    found = (_launch(trial, host, points, curves.get(trial, ()), percentile) for trial, host, points in launches)
    return tuple(launch for launch in found if launch)


def _launch(
    trial: int,
    host: str,
    points: Sequence[OperatingPoint],
    curve: Sequence[OperatingPoint],
    percentile: Percentile,
) -> HostLaunch | None:
    known = {type(point.load) for point in curve}
    points = tuple(p for p in points if type(p.load) in known and p.throughput.value > 0 and not p.errors)
    if not points:
        return None
    per_s = fmean(math.log(p.throughput.value / throughput_at(curve, p.load.level)) for p in points)
    ms = (math.log(p.latency_ms[percentile].value / latency_ms_at(curve, percentile, p.load.level)) for p in points)
    return HostLaunch(trial, host, per_s, fmean(ms), points)


@dataclass(frozen=True)
class Effects:
    """The effects of the hosts on one quantity.

    Attributes:
        by_host: The effect of each host, with its standard deviation.
        between: How much the hosts of the reference class differ: the root mean square of their effects.
    """

    by_host: Mapping[str, Speed] = field(default_factory=dict)
    between: float = 0.0

    def of(self, host: str) -> Speed:
        """The effect of a host; of one without a launch, what a host of the reference class may have."""
        return self.by_host.get(host) or Speed(0.0, self.between)


@dataclass(frozen=True)
class HostEffects:
    """The effects of all hosts: logarithms of factors, relative to the mean of the hosts of the reference class.

    Attributes:
        on_throughput: The effects on throughput.
        on_latency: The effects on latency.
    """

    on_throughput: Effects = Effects()
    on_latency: Effects = Effects()

    @classmethod
    def of(
        cls,
        records: Iterable[HostRecord],
        trials: Sequence[TrialResult],
        verified: Iterable[Verification],
        percentile: Percentile = "p99",
    ) -> HostEffects:
        """Estimate the effects.

        Args:
            records: The hosts.
            trials: The trials of a study, the baseline first.
            verified: The relaunched points.
            percentile: The latency percentile.

        Returns:
            The effects; `NO_HOSTS` if there is one host only.
        """
        records, verified = tuple(records), tuple(verified)
        if len(records) < 2:
            return NO_HOSTS  # a study that was begun by an early version has launches without the name of their host
        classes = {record.name: record.host_class for record in records}
        names = [trial.host for trial in trials] + [host for v in verified for host in v.hosts_of_rounds]
        for name in names:
            classes.setdefault(name, "")
        launches = launches_of_hosts(records, trials, verified, percentile)
        throughputs, latencies = [each.throughput for each in launches], [each.latency for each in launches]
        return cls(_effects(launches, throughputs, classes), _effects(launches, latencies, classes))

    def throughput(self, host: str) -> Speed:
        """The effect of a host on throughput."""
        return self.on_throughput.of(host)

    def latency(self, host: str) -> Speed:
        """The effect of a host on latency."""
        return self.on_latency.of(host)

    def merit(self, host: str, objective: Objective) -> Speed:
        """The effect of a host on the merit of an objective; see `OperatingPoint.merit`."""
        if objective.maximizes:
            return self.throughput(host)
        effect = self.latency(host)
        return Speed(-effect.mean, effect.deviation)


NO_HOSTS = HostEffects()
"""One host: it has no effect."""


def _effects(launches: Sequence[HostLaunch], logs: Sequence[float], classes: Mapping[str, str]) -> Effects:
    if not launches:
        return Effects({}, _HOSTS)
    hosts, others = list(classes), sorted(set(classes.values()) - {""})
    values = _clipped(launches, logs)
    of_host = np.array([[launch.host == host for host in hosts] for launch in launches], float).reshape(-1, len(hosts))
    in_class = np.array([[classes[host] == name for name in others] for host in hosts], float).reshape(len(hosts), -1)
    configs = sorted({launch.trial for launch in launches})
    of_config = np.array([[launch.trial == n for n in configs] for launch in launches], float).reshape(len(logs), -1)
    # What configs and classes have is estimated without a prior: least squares.
    fixed = np.hstack([of_config, of_host @ in_class])
    inverse = np.linalg.pinv(fixed) if fixed.size else fixed.T
    rest = values - fixed @ (inverse @ values)
    posterior = _Posterior.of(of_host - fixed @ (inverse @ of_host), rest, len(values) - np.linalg.matrix_rank(fixed))
    # An effect is that of the class and that of the host in it, relative to the mean of the reference class.
    classes_of = inverse[len(configs) :]
    reference = np.array([not classes[host] for host in hosts], float)
    centred = np.eye(len(hosts)) - np.outer(np.ones(len(hosts)), reference / max(1.0, reference.sum()))
    own = centred @ (np.eye(len(hosts)) - in_class @ classes_of @ of_host)
    means = own @ posterior.mean + centred @ in_class @ classes_of @ values
    launched = posterior.launch**2 * centred @ in_class @ classes_of @ classes_of.T @ in_class.T @ centred.T
    deviations = np.sqrt(np.maximum(0.0, np.diag(own @ posterior.covariance @ own.T + launched)))
    known = {classes[launch.host] for launch in launches} | {""}
    by_host = {
        host: Speed(float(mean), float(deviation)) if classes[host] in known else Speed(0.0, _CLASSES)
        for host, mean, deviation in zip(hosts, means, deviations, strict=True)
    }
    squares = [by_host[host].mean ** 2 + by_host[host].deviation ** 2 for host in hosts if not classes[host]]
    return Effects(by_host, math.sqrt(fmean(squares)) if squares else 0.0)


def _clipped(launches: Sequence[HostLaunch], logs: Sequence[float]) -> _Floats:
    """The speeds, so that a disturbance of the machine counts little."""
    by_config = defaultdict[tuple[int, str], list[float]](list)
    for launch, log in zip(launches, logs, strict=True):
        by_config[launch.trial, launch.host].append(log)
    middle = {config: median(each) for config, each in by_config.items()}
    typical = [middle[launch.trial, launch.host] for launch in launches]
    return np.clip(logs, np.subtract(typical, MOST_DEVIATION), np.add(typical, MOST_DEVIATION))


@dataclass(frozen=True)
class _Posterior:
    """What launches tell of the terms of the hosts.

    Attributes:
        mean: Shape (hosts,).
        covariance: Shape (hosts, hosts).
        launch: Standard deviation between launches on one host.
    """

    mean: _Floats
    covariance: _Floats
    launch: float

    @classmethod
    def of(cls, design: _Floats, rest: _Floats, freedom: int) -> _Posterior:
        """Integrate over both deviations on a grid.

        Args:
            design: The hosts of the launches without what other terms explain, of shape (launches, hosts).
            rest: The speeds without what other terms explain.
            freedom: Degrees of freedom of both.
        """
        hosts = design.shape[1]
        left, singular, right = np.linalg.svd(design, full_matrices=False) if rest.size else _nothing(hosts)
        informed = singular > 1e-9
        left, singular, right = left[:, informed], singular[informed], right[informed]
        along = left.T @ rest
        beside = max(0.0, float(rest @ rest - along @ along))
        between, launch = np.meshgrid(_HOST_DEVIATIONS, _LAUNCH_DEVIATIONS, indexing="ij")
        both = launch[..., None] ** 2 + between[..., None] ** 2 * singular**2
        likelihood = -0.5 * (np.log(both) + along**2 / both).sum(axis=-1)
        likelihood -= 0.5 * (beside / launch**2 + 2 * max(0, freedom - len(singular)) * np.log(launch))
        # Half-Cauchy; scaled inverse chi-squared, as in `Spread`. Steps of the grid are weights.
        prior = -np.log1p((between / _HOSTS) ** 2) + np.log(np.gradient(_HOST_DEVIATIONS))[:, None]
        prior -= PRIOR_FREEDOM * (np.log(launch) + 0.5 * (LAUNCH_DEVIATION / launch) ** 2)
        weights = np.exp(likelihood + prior - (likelihood + prior).max())
        weights /= weights.sum()
        trust = between[..., None] ** 2 * singular / both
        means = trust * along
        mean = np.einsum("ij,ijk->k", weights, means)
        # The law of total covariance; in directions that no launch tells of, the prior remains.
        variance = (weights * between**2).sum()
        told = np.einsum("ij,ijk,ijl->kl", weights, means, means) - np.outer(mean, mean)
        left_over = np.einsum("ij,ijk->k", weights, between[..., None] ** 2 * (launch[..., None] ** 2 / both))
        covariance = variance * (np.eye(hosts) - right.T @ right) + right.T @ (told + np.diag(left_over)) @ right
        return cls(right.T @ mean, covariance, math.sqrt((weights * launch**2).sum()))


def _nothing(hosts: int) -> tuple[_Floats, _Floats, _Floats]:
    return np.zeros((0, 0)), np.zeros(0), np.zeros((0, hosts))
