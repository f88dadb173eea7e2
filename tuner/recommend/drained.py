"""Which hosts should get no more work: their baseline drifts, or launches on them fail quality checks again and again.

A host drifts if the speed of the baseline on it has changed, and not on the others. Each time that the baseline is
launched on a host, its launches are split before each one, and both parts are compared by a t-test. As that looks
repeatedly, the error probability of 1 % is divided among hosts, launches and splits (Bonferroni). A drift by less than
5 % does no harm that pairs of launches on one host would not mend.

Launches on a host fail quality checks repeatedly if each of the last three had warnings about its host, while fewer
than half of the launches on other hosts had.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from scipy import special

from tuner.core.loads import RequestRate
from tuner.core.slo import Percentile
from tuner.measure.points import OperatingPoint
from tuner.measure.quality_warnings import QualityCheck
from tuner.measure.trial import TrialResult
from tuner.recommend.gain import LAUNCH_DEVIATION
from tuner.recommend.host_effects import HostLaunch, HostRecord, launches_of_hosts
from tuner.recommend.speed import MOST_DEVIATION, PRIOR_FREEDOM
from tuner.recommend.verification import Verification

# Error probability of finding a drift, over all hosts and looks, and the least drift that matters, as a logarithm.
_ERROR, _LEAST_DRIFT = 0.01, 0.05
# The fewest launches after the change, so that a single disturbance is no drift.
_LEAST_AFTER = 2
# The checks that tell of a host rather than of a config, and consecutive launches that fail them.
_OF_HOSTS = {QualityCheck.DRIFT, QualityCheck.GPU_THROTTLED, QualityCheck.MACHINE_LOAD}
_FAILING = 3


@dataclass(frozen=True)
class Drain:
    """A host that should get no more work.

    Attributes:
        host: Its name.
        reason: Why, in one line.
        trials: Numbers of the trials to measure again on another host.
    """

    host: str
    reason: str
    trials: tuple[int, ...]


def to_drain(
    records: Iterable[HostRecord],
    trials: Sequence[TrialResult],
    verified: Iterable[Verification],
    percentile: Percentile = "p99",
) -> Drain | None:
    """The next host to drain; None: there is none, or no other host of its class is left.

    Args:
        records: The hosts. Drained ones are left out, with all of their launches.
        trials: The trials of a study, the baseline first.
        verified: The relaunched points.
        percentile: The latency percentile that counts at a fixed rate.
    """
    remaining = {record.name: record.host_class for record in records if not record.drained}
    spare = [name for name, of in remaining.items() if list(remaining.values()).count(of) > 1]
    records, verified = tuple(records), tuple(verified)
    launches = [
        launch
        for launch in launches_of_hosts(records, trials, verified, percentile)
        if launch.host in remaining and launch.trial == 0
    ]
    searched = {record.name: len(record.launches) for record in records}
    for trial in trials[:1]:
        searched[trial.host] = searched.get(trial.host, 0) + 1
    for host in spare:
        if drift := _drift(launches, host, hosts=len(remaining)):
            reason, after = drift
            # A change between its first launch and the finals may have come before any of its trials.
            again = after <= searched[host]
            return Drain(host, reason, _trials_of(host, trials) if again else ())
    failing = _failing(trials, verified, remaining)
    return next((drain for host in spare if (drain := _low_quality(failing, host))), None)


def _trials_of(host: str, trials: Sequence[TrialResult]) -> tuple[int, ...]:
    return tuple(sorted(trial.number for trial in trials[1:] if trial.host == host and not trial.imported))


def _drift(launches: Sequence[HostLaunch], host: str, hosts: int) -> tuple[str, int] | None:
    """The reason, and the number of launches before the clearest change; None: there is none."""
    own = [at for at, launch in enumerate(launches) if launch.host == host]
    if len(own) <= _LEAST_AFTER:
        return None
    # The sum over all numbers of launches of 6 / (pi n)^2 is 1.
    allowed = _ERROR / hosts * 6 / (math.pi * len(own)) ** 2 / (len(own) - 1)
    found: dict[int, tuple[float, float]] = {}
    for before in range(1, len(own) - _LEAST_AFTER + 1):
        changes, freedom = _changes(launches, host, own[before])
        limit = -float(special.stdtrit(freedom, allowed / 2))
        if all(abs(change) >= max(_LEAST_DRIFT, limit * deviation) for change, deviation in changes):
            found[before] = changes[0]
    if not found:
        return None
    before = max(found, key=lambda at: abs(found[at][0]) / found[at][1])
    shift, rest = found[before][0], len(own) - before
    change = f"{abs(math.expm1(shift)):.0%} {'slower' if shift < 0 else 'faster'}"
    return f"its baseline became {change} for the last {rest} launches (99 % confidence)", before


def _changes(launches: Sequence[HostLaunch], host: str, split: int) -> tuple[list[tuple[float, float]], int]:
    """The change of a host's speed at a launch, and that beyond the change of the others.

    What changed everywhere is no fault of the host, and neither is what changed on others only.

    Returns:
        The changes with their standard deviations, and the degrees of freedom.
    """
    parts = defaultdict[tuple[str, bool], list[float]](list)
    for at, (launch, speed) in enumerate(zip(launches, _speeds(launches), strict=True)):
        parts[launch.host, at >= split].append(speed)
    means = {part: fmean(speeds) for part, speeds in parts.items()}
    squares = sum((speed - means[part]) ** 2 for part, speeds in parts.items() for speed in speeds)
    freedom = PRIOR_FREEDOM + len(launches) - len(parts)
    variance = (PRIOR_FREEDOM * LAUNCH_DEVIATION**2 + squares) / freedom

    def change(name: str) -> tuple[float, float]:
        inverse = 1 / len(parts[name, True]) + 1 / len(parts[name, False])
        return means[name, True] - means[name, False], variance * inverse

    own, square = change(host)
    others = [change(name) for name, after in parts if after and name != host and (name, False) in parts]
    if not others:
        return [(own, math.sqrt(square))], freedom
    beyond = own - fmean(other for other, _ in others)
    both = square + sum(each for _, each in others) / len(others) ** 2
    return [(own, math.sqrt(square)), (beyond, math.sqrt(both))], freedom


def _speeds(launches: Sequence[HostLaunch]) -> list[float]:
    """The logarithms of the speeds of launches; a disturbance of the machine counts little."""
    by_host = defaultdict[str, list[float]](list)
    for launch in launches:
        by_host[launch.host].append(_speed(launch))
    middle = {host: median(speeds) for host, speeds in by_host.items()}
    return [
        min(max(_speed(launch), middle[launch.host] - MOST_DEVIATION), middle[launch.host] + MOST_DEVIATION)
        for launch in launches
    ]


def _speed(launch: HostLaunch) -> float:
    """The logarithm of the speed of a launch of the baseline, relative to the first trial."""
    return -launch.latency if isinstance(launch.points[0].load, RequestRate) else launch.throughput


@dataclass(frozen=True)
class _Checked:
    """A launch; `trial`: its number if it is one of the search; `checks`: what its host failed."""

    trial: int | None
    checks: frozenset[QualityCheck]


def _failing(
    trials: Sequence[TrialResult], verified: Iterable[Verification], hosts: Iterable[str]
) -> Mapping[str, list[_Checked]]:
    """The launches on each host with what its host failed at half of the loads or more, in order of time."""
    found: dict[str, list[_Checked]] = {host: [] for host in hosts}
    for trial in trials:
        if trial.host in found and trial.curve and not trial.imported:
            found[trial.host].append(_Checked(trial.number, _checks(trial.curve)))
    by_round = defaultdict[tuple[int, str, int], list[OperatingPoint]](list)
    for each in verified:
        for number, host, point in zip(each.numbers, each.hosts_of_rounds, each.rounds, strict=False):
            by_round[number, host, each.trial].append(point)
    for (_, host, _), points in sorted(by_round.items(), key=lambda item: item[0]):
        if host in found:
            found[host].append(_Checked(None, _checks(points)))
    return found


def _checks(points: Sequence[OperatingPoint]) -> frozenset[QualityCheck]:
    failed = [{warning.check for warning in point.warnings} & _OF_HOSTS for point in points]
    return frozenset(check for check in _OF_HOSTS if 2 * sum(check in each for each in failed) >= len(points))


def _low_quality(launches: Mapping[str, list[_Checked]], host: str) -> Drain | None:
    last = launches[host][-_FAILING:]
    others = [launch for name, each in launches.items() if name != host for launch in each]
    usual = 2 * sum(bool(launch.checks) for launch in others) >= len(others)
    if len(last) < _FAILING or not all(launch.checks for launch in last) or usual:
        return None
    names = ", ".join(sorted({check.words for launch in last for check in launch.checks}))
    again = tuple(launch.trial for launch in last if launch.trial)
    return Drain(host, f"its last {_FAILING} launches failed quality checks ({names})", again)
