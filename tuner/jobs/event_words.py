"""Events in words, for logs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.cluster.host_changes import HostChange
from tuner.core.quantities import format_duration, format_ms, format_number
from tuner.jobs.events import (
    BestChanged,
    Event,
    FinalistEliminated,
    HostChanged,
    ModelBegan,
    ModelEnded,
    ModelResult,
    NightEnded,
    Noted,
    PhaseBegan,
    PointMeasured,
    PointVerified,
    SlotChanged,
    StateChanged,
    TrialBegan,
    TrialDropped,
    TrialEnded,
    WorkRequeued,
)


class EventWords:
    """Describes the events of a job, each in a line. It must see all events, as they refer to earlier ones."""

    def __init__(self) -> None:
        self._percentiles: dict[str, str] = {}

    def line(self, event: Event) -> str:  # noqa: PLR0911 (one for each type of event)
        """An event in words; empty: it says nothing that others do not say."""
        match event:
            case StateChanged():
                return _state(event)
            case PhaseBegan():
                return f"phase: {event.phase}"
            case Noted():
                return event.text
            case TrialBegan():
                on = f" on {event.slot}" if event.slot else ""
                return f"trial {event.trial} begins{on}: {event.candidate}"
            case FinalistEliminated():
                at = f" at {_load(event.load)}" if event.load else ""
                return f"eliminated trial {event.trial}{at}: {event.reason}"
            case BestChanged():
                return _best(event.best)
            case ModelEnded():
                return f"{event.model}: {event.result.failure or event.result.ended}"
            case NightEnded():
                return f"{event.model}: {event.night.get('outcome', 'ended')}: {event.night.get('reason', '')}"
            case TrialDropped() | SlotChanged() | WorkRequeued() | HostChanged():
                return _placed(event)
            case _:
                return self._measured(event)

    def _measured(self, event: Event) -> str:
        """What was measured, in words."""
        match event:
            case ModelBegan():
                self._percentiles[event.model] = event.percentile
                return _model(event)
            case PointMeasured() if event.trial is None:
                return self.point(event.model, event.point)
            case PointVerified() if event.point is not None:
                times = f"{event.rounds} launch{'es' * (event.rounds > 1)}"
                return f"trial {event.trial} relaunched: {self.point(event.model, event.point)}, {times}"
            case TrialEnded():
                outcome = self._outcome(event)
                on = f" on {event.host}" if event.host else ""
                return f"trial {event.trial}{on}: {event.candidate}: {outcome} ({format_duration(event.wall_s)})"
            case _:
                return ""

    def _outcome(self, event: TrialEnded) -> str:
        if event.failure:
            return f"{event.cause}: {event.failure}"
        if not event.points:
            return "no operating point"
        highest = max(event.points, key=lambda point: point["throughput"]["value"] or 0.0)
        return f"up to {self.point(event.model, highest)}"

    def point(self, model: str, point: Mapping[str, Any]) -> str:
        """An operating point of a model in words."""
        percentile = self._percentiles.get(model, "p99")
        throughput, latency_ms = point["throughput"]["value"], point["latency_ms"][percentile]["value"]
        if throughput is None or latency_ms is None:
            return f"no answers at {_load(point['load'])}"
        return (
            f"{format_number(throughput)} inferences/s, {percentile} {format_ms(latency_ms)} at {_load(point['load'])}"
        )


def dropped_in_words(trial: int, reason: str) -> str:
    """A trial without a result, in words."""
    return f"trial {trial} does not count: {reason}"


def requeued_in_words(work: str, slot: str, reason: str) -> str:
    """Work whose slot was lost, in words."""
    return f"{work} starts again on another host: {slot} was lost ({reason})"


def _placed(event: TrialDropped | SlotChanged | WorkRequeued | HostChanged) -> str:
    """What happened to hosts, slots and their work, in words."""
    match event:
        case TrialDropped():
            return dropped_in_words(event.trial, event.reason)
        case SlotChanged():
            return f"{event.slot}: {event.work}" if event.work else ""
        case WorkRequeued():
            return requeued_in_words(event.work, event.slot, event.reason)
        case HostChanged():
            return str(
                HostChange(event.host, event.event, event.reason, event.host_class, event.slots, event.description)
            )


def _state(event: StateChanged) -> str:
    attempt = f" (attempt {event.attempt})" if event.attempt > 1 and event.state == "starting" else ""
    return f"{event.state}{attempt}{f': {event.reason}' if event.reason else ''}"


def _model(event: ModelBegan) -> str:
    slo = f"SLO {event.slo}" if event.slo else "no SLO"
    if event.budget_s is None:
        return f"measuring {event.model}: {slo}"
    return f"tuning {event.model}: {event.objective}, {slo}, budget {format_duration(event.budget_s)}"


def _best(best: ModelResult) -> str:
    if best.throughput is None or best.latency_ms is None:
        return "best so far: no candidate holds the SLO"
    gain = f", {best.gain.value:.2f} x" if best.gain else ""
    at = format_ms(best.latency_ms.value)
    return f"best so far: {format_number(best.throughput.value)}/s, {best.percentile} {at}{gain} (trial {best.trial})"


def _load(load: Mapping[str, Any]) -> str:
    ((name, value),) = load.items()
    if name == "request_rate":
        rates = value if isinstance(value, list) else [value]
        return f"{' to '.join(f'{each:g}' for each in rates)} requests/s"
    return f"{name} {value}"
