"""The table of the hosts of a run on several."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.core.record import Interval
from tuner.results.hosts import host_results
from tuner.study.study import Study


@dataclass(frozen=True)
class HostRow:
    """A host.

    Attributes:
        name: Its name.
        host_class: The class of hosts that it is compared with; empty: that of the reference host.
        facts: What it has, in words.
        trials: Number of trials that it measured.
        relaunches: Number of launches on it in verification.
        throughput: How much higher throughput is on it than on the mean host of the reference class, in words.
        latency: The same of latency.
        drained: Why it got no more work; empty: it did.
    """

    name: str
    host_class: str
    facts: str
    trials: int
    relaunches: int
    throughput: str
    latency: str
    drained: str


def hosts_table(study: Study) -> tuple[HostRow, ...]:
    """A row for each host; empty if there is only one."""
    return tuple(
        HostRow(
            host.record.name,
            host.record.host_class,
            host.facts,
            host.trials,
            host.relaunches,
            _effect(host.throughput),
            _effect(host.latency),
            host.record.drained or "",
        )
        for host in host_results(study)
    )


def _effect(factor: Interval) -> str:
    """A factor as a difference: `+2.1% (-0.3% to +4.5%)`."""
    return f"{factor.value - 1:+.1%} ({factor.low - 1:+.1%} to {factor.high - 1:+.1%})"
