"""A job of the service in words, for the terminal and for the logs of CI."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tuner.client.resources import ModelResult
from tuner.core.errors import shortened
from tuner.core.quantities import format_ms, format_number
from tuner.core.record import Interval
from tuner.jobs.event_words import EventWords
from tuner.jobs.events import BestChanged, Event, PhaseBegan, PointVerified, SlotChanged, StateChanged, TrialBegan


class EventLines:
    """The events of a job as lines, without those that repeat what another one tells.

    Args:
        job: Number of the job.

    Attributes:
        words: Has seen all events so far.
    """

    def __init__(self, job: int) -> None:
        self.words = EventWords()
        self._job = job
        self._best = ""

    def of(self, event: Event) -> str:
        """The line of an event; empty: it has none."""
        line = self.words.line(event)
        match event:
            case StateChanged():
                return state_in_words(self._job, event.state, event.reason)
            # The line of a trial's end tells of it and of its phase, and a note of a relaunch.
            case TrialBegan() | PointVerified() | SlotChanged():
                return ""
            case PhaseBegan() if event.phase in {"baseline", "search"}:
                return ""
            case BestChanged():
                before, self._best = self._best, line
                return line if line != before else ""
            case _:
                return shortened(line)


def state_in_words(job: int, state: str, reason: str) -> str:
    """The state of a job: `job 12: queued: GPU 0 is held by job 11`."""
    reason = shortened(reason).removeprefix(f"{state}; ")
    return f"job {job}: {state}" + (f": {reason}" if reason else "")


def load_in_words(load: Mapping[str, Any] | None) -> str:
    """A load behind a point: ` at concurrency 16`; empty: it is unknown."""
    for name, value in (load or {}).items():
        if name == "concurrency":
            return f" at concurrency {value}"
        if name == "request_rate":
            rates = value if isinstance(value, list) else [value]
            return f" at {' to '.join(f'{rate:,g}' for rate in rates)} requests/s"
        return f" at {name} {value}"
    return ""


def result_in_words(result: ModelResult) -> Iterator[str]:
    """The result of a model: its best config and its gain, or why there is none."""
    if result.failure:
        yield f"{result.model}: failed: {shortened(result.failure)}"
        return
    if result.throughput is None:
        yield f"{result.model}: {'no candidate holds the SLO' if result.ended else 'no result'}"
        return
    verified = "" if result.verified else ", not verified"
    if result.trial == 0:
        yield f"{result.model}: no config is better than the baseline: {_measured(result)}"
        return
    if result.gain:
        yield f"{result.model}: gain {gain_in_words(result.gain)}{verified}"
    yield f"{result.model}: best {_measured(result)}"


def gain_in_words(gain: Interval) -> str:
    """A gain with its interval: `1.52 x the baseline (1.43 to 1.61)`."""
    return f"{gain.value:.2f} x the baseline ({gain.low:.2f} to {gain.high:.2f})"


def _measured(result: ModelResult, gain: str = "") -> str:
    parts = [f"{format_number(result.throughput.value)} inferences/s"] if result.throughput else []
    if result.latency_ms:
        parts.append(f"{result.percentile or 'latency'} {format_ms(result.latency_ms.value)}")
    return f"{', '.join(parts)}{load_in_words(result.load)}{gain} (trial {result.trial})"
