"""`tritontune jobs`: lists the jobs of the service, shows one, and follows them."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone

import click
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from tuner.cli.followed_job import end_as, follow, job_json, print_job
from tuner.cli.service import ServiceOptions
from tuner.client.client import Client
from tuner.client.event_lines import state_in_words
from tuner.client.resources import Job, JobState
from tuner.core.errors import InterruptedRunError, ServiceAwayError
from tuner.core.json_text import json_text
from tuner.core.quantities import format_duration
from tuner.report.results_console import results_console

_COLOURS = {"running": "cyan", "starting": "cyan", "succeeded": "green", "failed": "red", "lost": "red"}
_PAUSE_S = 2.0


def jobs(
    job: int | None, options: ServiceOptions, *, states: Sequence[JobState], last: int, watch: bool, as_json: bool
) -> None:
    """Show jobs.

    Args:
        job: The job to show; None: a list.
        options: The service.
        states: Only jobs in these states; empty: all.
        last: Number of jobs in the list.
        watch: Show the list again and again, or follow the job until it has ended.
        as_json: Print JSON.

    Raises:
        TritontuneError: the service refuses it, or the followed job failed.
    """
    with options.client() as client:
        if job is None:
            _list(client, states, last, watch=watch, as_json=as_json)
            return
        found = follow(client, job, words=options.words) if watch else client.job(job)
        print_job(client, found, as_json=as_json)
        if not watch and not as_json:
            _print_details(found)
            _print_hosts(client, found)
    if watch:
        sys.exit(end_as(found))


def _list(client: Client, states: Sequence[JobState], last: int, *, watch: bool, as_json: bool) -> None:
    found = list(client.jobs(states=states, limit=last))
    if as_json:
        click.echo(json_text({"schema": 1, "jobs": [job_json(client, each) for each in found]}, indent=1))
        return
    if not watch:
        if found:
            results_console().print(_table(found))
        else:
            click.echo("no jobs yet" if not states else f"no jobs are {' or '.join(states)}")
        return
    try:
        _watch(client, states, last, found)
    except KeyboardInterrupt:
        raise InterruptedRunError("stopped watching; the jobs go on") from None


def _watch(client: Client, states: Sequence[JobState], last: int, found: Sequence[Job]) -> None:
    """Show the list until Ctrl-C, also while the service restarts: on a terminal as a table, else a line a change."""
    console = Console()
    if console.is_terminal:
        with Live(_table(found), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(_PAUSE_S)
                found, problem = _again(client, states, last, found)
                table = _table(found)
                table.caption = escape(problem)
                live.update(table, refresh=True)
    told: dict[int, str] = {}
    while True:
        for each in reversed(found):
            line = state_in_words(each.id, each.state, each.reason)
            if told.get(each.id) != line:
                told[each.id] = line
                click.echo(line)
        time.sleep(_PAUSE_S)
        found, _ = _again(client, states, last, found)


def _again(client: Client, states: Sequence[JobState], last: int, found: Sequence[Job]) -> tuple[Sequence[Job], str]:
    """The jobs now; while the service is away, the last known ones, and why."""
    try:
        return list(client.jobs(states=states, limit=last)), ""
    except ServiceAwayError as error:
        return found, str(error)


def _table(found: Sequence[Job]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("id", "kind", "state", "models", "SLO", "gain", "took"):
        table.add_column(column, justify="right" if column in {"id", "gain", "took"} else "left")
    table.add_column("why", overflow="fold")
    for job in found:
        gains = [f"{result.gain.value:.2f}" for result in job.results if result.gain]
        name = f"{job.target}: " if job.target else ""
        table.add_row(
            str(job.id),
            job.kind,
            f"[{_COLOURS.get(job.state, 'default')}]{job.state}[/]",
            escape(f"{name}{', '.join(job.models or [result.model for result in job.results])}"),
            escape(job.slo),
            ", ".join(gains),
            format_duration(seconds) if (seconds := _took_s(job)) else "",
            escape(job.reason or job.phase or ""),
        )
    return table


def _took_s(job: Job) -> float | None:
    if job.started_at is None:
        return None
    return ((job.ended_at or datetime.now(timezone.utc)) - job.started_at).total_seconds()


def _print_details(job: Job) -> None:
    """What a job is, a line for each fact."""
    progress = job.progress
    facts = {
        "kind": job.kind,
        "target": job.target,
        "repository": job.repository,
        "models": ", ".join(job.models),
        "SLO": job.slo,
        "phase": job.phase if not job.is_final else None,
        "progress": f"{progress.trials} trials, {progress.failed_trials} failed; {progress.points} operating points",
        "slots": ", ".join(job.slots),
        "priority": str(job.priority) if job.priority else None,
        "repeats": f"job {job.retry_of}" if job.retry_of else None,
        "schedule": job.schedule,
        "submitted": f"{job.created_at:%Y-%m-%d %H:%M} UTC by {job.submitted_by or 'unknown'}",
        "took": format_duration(seconds) if (seconds := _took_s(job)) else None,
    }
    for name, value in facts.items():
        if value:
            click.echo(f"{name}: {value}")


def _print_hosts(client: Client, job: Job) -> None:
    """The hosts of a job that runs on several slots, a line for each."""
    if not {"executor", "parallel"} & job.job.keys():
        return
    for host in client.hosts_of_job(job.id):
        busy = sum(slot.work is not None for slot in host.slots)
        words = f"{len(host.slots)} slot{'s' * (len(host.slots) != 1)}, {busy} busy"
        if host.state != "admitted":
            words = f"{host.state.replace('_', ' ')}{f': {host.reason}' if host.reason else ''}"
        click.echo(f"host {host.name}: {words}")
