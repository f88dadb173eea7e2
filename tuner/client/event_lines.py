"""The events of a job as lines for the terminal and for the logs of CI."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tuner.client.resources import ModelResult
from tuner.core.errors import shortened
from tuner.core.quantities import format_duration, format_ms, format_number
from tuner.core.record import Interval
from tuner.jobs.events import (
    BestChanged,
    Event,
    FinalistEliminated,
    ModelBegan,
    ModelEnded,
    NightEnded,
    Noted,
    PhaseBegan,
    PointMeasured,
    StateChanged,
    TrialEnded,
)


class EventLines:
    """Says what an event means, with what earlier ones told. Notes tell of relaunches.

    Args:
        job: Number of the job.
    """

    def __init__(self, job: int) -> None:
        self._job = job
        self._percentile = "p99"
        self._best: dict[str, str] = {}
        self._words: Mapping[type[Event], Callable[[Any], str]] = {
            StateChanged: lambda event: state_in_words(self._job, event.state, event.reason),
            PhaseBegan: _phase,
            Noted: lambda event: shortened(event.text),
            ModelBegan: self._beginning,
            PointMeasured: lambda event: self._point(event.point) if event.trial is None else "",
            TrialEnded: self._trial,
            FinalistEliminated: lambda event: f"trial {event.trial} eliminated: {shortened(event.reason)}",
            BestChanged: self._best_so_far,
            ModelEnded: lambda event: f"{event.model}: {event.result.failure or event.result.ended or 'ended'}",
            NightEnded: _night,
        }

    def of(self, event: Event) -> str:
        """The line of an event; empty: it has none."""
        words = self._words.get(type(event))
        return words(event) if words else ""

    def _beginning(self, event: ModelBegan) -> str:
        self._percentile = event.percentile
        limit = f"SLO {event.slo}" if event.slo else "no SLO"
        budget = f", budget {format_duration(event.budget_s)}" if event.budget_s else ""
        aim = "" if event.objective == "throughput" else f"{event.objective}, "
        return f"{'tuning' if event.budget_s else 'measuring'} {event.model}: {aim}{limit}{budget}"

    def _point(self, point: Mapping[str, Any]) -> str:
        return point_in_words(point, self._percentile)

    def _trial(self, event: TrialEnded) -> str:
        if event.failure:
            kind = f"{event.cause}: " if event.cause else ""
            result = f"{kind}{shortened(event.failure)}"
        elif fastest := max(event.points, key=lambda point: point["throughput"]["value"], default=None):
            result = f"up to {self._point(fastest)}"
        else:
            result = "no point was measured"
        words = f": {event.candidate}" if event.candidate else ""
        return f"trial {event.trial}{words}: {result} ({format_duration(event.wall_s)})"

    def _best_so_far(self, event: BestChanged) -> str:
        """The best of a model, if the line differs from the last one."""
        best = event.best
        gain = f", {best.gain.value:.2f} x" if best.gain and best.trial else ""
        words = f"best so far: {_measured(best, gain)}" if best.throughput else ""
        before, self._best[event.model] = self._best.get(event.model, ""), words
        return words if words != before else ""


def state_in_words(job: int, state: str, reason: str) -> str:
    """The state of a job: `job 12: queued: GPU 0 is held by job 11`."""
    reason = shortened(reason).removeprefix(f"{state}; ")
    return f"job {job}: {state}" + (f": {reason}" if reason else "")


def point_in_words(point: Mapping[str, Any], percentile: str) -> str:
    """An operating point, as in `front.json`: `1,234 inferences/s, p99 12.3 ms at concurrency 16`."""
    latency = point.get("latency_ms", {}).get(percentile)
    at = f", {percentile} {format_ms(latency['value'])}" if latency else ""
    return f"{format_number(point['throughput']['value'])} inferences/s{at}{load_in_words(point.get('load'))}"


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


def _phase(event: PhaseBegan) -> str:
    """A phase, unless the lines of its trials tell it."""
    if event.phase in {"baseline", "search"}:
        return ""
    return f"{event.model}: {event.phase}" if event.model else event.phase


def _night(event: NightEnded) -> str:
    return f"{event.model}: {event.night.get('outcome', 'ended')}: {shortened(str(event.night.get('reason', '')))}"
