"""Hosts and slots on pages: those of the service, and those of the jobs that run on several."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.client.resources import Host, Job, JobHost
from tuner.service.auth import Principal
from tuner.service.operations import Service
from tuner.service.store.jobs import ACTIVE, JobFilter

_MOST_JOBS = 20


@dataclass(frozen=True)
class HostsPart:
    """The hosts that a page shows.

    Attributes:
        hosts: Those of the service.
        running: The jobs that hold their slots, by id.
        spread: The jobs that run on several slots, each with its hosts.
    """

    hosts: tuple[Host, ...]
    running: dict[int, Job]
    spread: tuple[tuple[Job, tuple[JobHost, ...]], ...]


def hosts_part(service: Service, who: Principal) -> HostsPart:
    """The hosts as they are now, and what they do."""
    hosts = service.hosts(who).items
    held = {slot.job for host in hosts for slot in host.slots if slot.job is not None}
    active = service.jobs(who, JobFilter(states=frozenset(ACTIVE)), limit=_MOST_JOBS).items
    spread = [(job, tuple(service.view(who, job.id).hosts)) for job in reversed(active)]
    return HostsPart(
        hosts,
        {job_id: service.job(who, job_id) for job_id in sorted(held)},
        tuple((job, its) for job, its in spread if its),
    )
