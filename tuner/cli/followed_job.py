"""Follows a job of the service on the terminal, and ends as `tritontune run` would."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live
from typing_extensions import Self

from tuner.client.client import Client
from tuner.client.event_lines import EventLines, result_in_words, state_in_words
from tuner.client.resources import Job
from tuner.core.errors import InterruptedRunError, SLOError, TritontuneError, TuningError, UsageError
from tuner.core.json_text import json_text
from tuner.jobs.event_words import EventWords
from tuner.jobs.events import Event
from tuner.report.slot_events import show_event
from tuner.report.slot_lines import SlotLines

_ERRORS: Mapping[int, type[TritontuneError]] = {2: UsageError, 3: SLOError, 130: InterruptedRunError}
# A night that found an improvement or a regression.
_NEWS = frozenset({10, 20})


def follow(client: Client, job: int, *, words: str) -> Job:
    """Print the events of a job on stderr, a line each, until it has ended; on a terminal, also what its slots do now.

    Args:
        client: The service.
        job: The job.
        words: Options that name the service, for commands in messages.

    Returns:
        The job at its end.

    Raises:
        InterruptedRunError: Ctrl-C. The job goes on.
    """
    lines = EventLines(job)
    try:
        with _Screen() as screen:

            def told(event: Event) -> None:
                screen.show(lines.of(event), event, lines.words)

            return client.wait(job, told=told)
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"stopped waiting; job {job} goes on. To follow it: tritontune jobs {job} --watch{words}. "
            f"To cancel it: tritontune cancel {job}{words}"
        ) from None


class _Screen:
    """Lines on stderr; on a terminal, the busy slots of a job are below. Use it as a context manager."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._slots = SlotLines()
        self._live: Live | None = None

    def show(self, line: str, event: Event, words: EventWords) -> None:
        """Print the line of an event, if it has one, and bring the slots up to date."""
        if line and self._live:
            self._console.print(line, soft_wrap=True, highlight=False, markup=False)
        elif line:
            click.echo(line, err=True)
        show_event(self._slots, event, words)
        if self._live is None and self._slots and self._console.is_terminal:
            self._live = Live(get_renderable=self._busy, console=self._console, transient=True, refresh_per_second=2)
            self._live.start()

    def _busy(self) -> Group:
        return Group(*self._slots.lines(self._console.height - 2))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()


def print_job(client: Client, job: Job, *, as_json: bool) -> None:
    """Print a job on stdout: its state, the results of its models, and its page."""
    if as_json:
        click.echo(json_text(job_json(client, job), indent=1))
        return
    click.echo(state_in_words(job.id, job.state, job.reason))
    for result in job.results:
        for line in result_in_words(result):
            click.echo(line)
    click.echo(f"dashboard: {client.page(f'jobs/{job.id}')}")


def job_json(client: Client, job: Job) -> dict[str, Any]:
    """A job as JSON data: that of the REST API, and the address of its page."""
    return {**job.model_dump(mode="json"), "page": client.page(f"jobs/{job.id}")}


def end_as(job: Job) -> int:
    """The exit code of a job that has ended well.

    Raises:
        TritontuneError: the job failed, was cancelled or lost, or no candidate holds the SLO.
    """
    code = job.exit_code
    if job.state == "succeeded" and code in {None, 0, *_NEWS}:
        return code or 0
    if code in {None, 0}:
        code = InterruptedRunError.exit_code if job.state == "cancelled" else TuningError.exit_code
    raise _ERRORS.get(code or 1, TuningError)(state_in_words(job.id, job.state, job.reason))
