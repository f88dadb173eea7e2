"""The hosts of a run on several: what each did, how much it differs from the others, and whether it was drained."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuner.core.record import Interval
from tuner.recommend.host_effects import HostEffects, HostRecord
from tuner.recommend.speed import Speed
from tuner.results.points_json import interval_json
from tuner.study.study import Study

# Half the width of a 95 % interval, in standard deviations.
_SIGMAS = 1.96


@dataclass(frozen=True)
class HostResult:
    """What a host did.

    Attributes:
        record: The host.
        trials: The number of trials that it measured.
        relaunches: The number of launches of finalists and the baseline on it in verification.
        throughput: The throughput of a config on it over that on the mean host of the reference class.
        latency: The same of the latency at the percentile of the SLO.
    """

    record: HostRecord
    trials: int
    relaunches: int
    throughput: Interval
    latency: Interval

    @property
    def facts(self) -> str:
        """What it has, in words."""
        facts = self.record.facts
        cores = facts.get("cores")
        gpus = Counter(facts.get("gpus") or ())
        words = [f"{count} x {name}" if count > 1 else str(name) for name, count in gpus.items()]
        words += [f"driver {facts['driver']}"] if facts.get("driver") else []
        words += [str(facts[name]) for name in ("processor",) if facts.get(name)]
        words += [f"{cores} core{'s' * (cores != 1)} a slot"] if cores else []
        return ", ".join(words)


def host_results(study: Study) -> tuple[HostResult, ...]:
    """The hosts of a study, in the order in which they joined; empty if there is only one."""
    records = {record.name: record for record in study.hosts}
    trials = Counter(trial.host for trial in study.trials if trial.host)
    # The launches of a round under several loads are one launch.
    rounds = {
        (verified.trial, number, host)
        for verified in study.verified
        for number, host in zip(verified.numbers, verified.hosts, strict=False)
    }
    relaunches = Counter(host for _, _, host in rounds)
    for name in (*trials, *relaunches):
        records.setdefault(name, HostRecord(name=name))
    if len(records) < 2:
        return ()
    effects = HostEffects.of(study.hosts, study.trials, study.verified, study.recommendation.percentile)
    return tuple(
        HostResult(
            record,
            trials[name],
            relaunches[name],
            _factor(effects.throughput(name)),
            _factor(effects.latency(name)),
        )
        for name, record in records.items()
    )


def hosts_json(hosts: Sequence[HostResult]) -> list[dict[str, Any]]:
    """The hosts for `front.json`."""
    return [
        {
            "name": host.record.name,
            "class": host.record.host_class,
            "facts": _plain(host.record.facts),
            "trials": host.trials,
            "relaunches": host.relaunches,
            "throughput_effect": interval_json(host.throughput),
            "latency_effect": interval_json(host.latency),
            "drained": host.record.drained,
        }
        for host in hosts
    ]


def _factor(effect: Speed) -> Interval:
    """A factor by its logarithm, with its 95 % interval."""
    low, high = (math.exp(effect.mean + side * _SIGMAS * effect.deviation) for side in (-1, 1))
    return Interval(value=math.exp(effect.mean), low=low, high=high)


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in facts.items()}
