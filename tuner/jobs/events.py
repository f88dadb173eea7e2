"""The events of a job: `events.jsonl`, one numbered object a line.

The service, the dashboard, the console of `tritontune jobs --watch` and tests read the same stream.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer, TypeAdapter, WithJsonSchema

from tuner.cluster.host_changes import HostEvent
from tuner.core.errors import InterruptedRunError, SLOError
from tuner.core.record import Interval, Record
from tuner.study.run_folder import EVENTS

VERSION = 1
"""Counts breaking changes of the events."""

FILE = EVENTS
"""Name of the file in the folder of a job or a run."""

JobState = Literal["queued", "starting", "running", "cancelling", "succeeded", "failed", "cancelled", "lost"]

FINAL: frozenset[JobState] = frozenset({"succeeded", "failed", "cancelled", "lost"})
"""States that never change again."""

Phase = Literal[
    "baseline",
    "search",
    "verification",
    "certification",
    "warm-up",
    "explanation",
    "report",
    "deployed",
    "comparison",
    "measurement",
]
"""Parts of the work. A night also measures the deployed config, and compares it with the best candidate."""

# Exit codes of commands whose work is done: 10 and 20 are those of a night that found an improvement or a regression.
_DONE = frozenset({0, SLOError.exit_code, 10, 20})


def final_state(exit_code: int) -> JobState:
    """The final state of a job whose process ended by itself, from its exit code."""
    if exit_code in _DONE:
        return "succeeded"
    return "cancelled" if exit_code == InterruptedRunError.exit_code else "failed"


class _Told(Record):
    """A part of an event. Fields that only later versions know are ignored."""

    model_config = ConfigDict(extra="ignore")


Point = Annotated[dict[str, Any], Field(json_schema_extra={"$comment": "operating_point"})]
"""An operating point as JSON; see `tuner.results.points_json.judged_point_json`."""
LoadJson = Annotated[dict[str, Any], Field(json_schema_extra={"$comment": "load"})]
"""A load as JSON; see `tuner.results.points_json.load_json`."""


def _with_ends(value: Any) -> Any:
    """An interval as JSON has it: an unbounded end is null."""
    if not isinstance(value, Mapping):
        return value
    ends = {"low": -math.inf, "high": math.inf}
    return {name: ends.get(name) if each is None else each for name, each in value.items()}


def _without_ends(value: Interval) -> dict[str, float | None]:
    return {name: each if math.isfinite(each) else None for name, each in value}


_INTERVAL = {
    "description": "An estimate with its 95 % confidence interval.",
    "type": "object",
    "properties": {
        "value": {"description": "Estimate.", "type": "number"},
        "low": {"description": "Lower end; null: unbounded.", "type": ["number", "null"]},
        "high": {"description": "Upper end; null: unbounded.", "type": ["number", "null"]},
    },
    "required": ["value", "low", "high"],
    "additionalProperties": False,
}

OpenInterval = Annotated[
    Interval,
    BeforeValidator(_with_ends),
    PlainSerializer(_without_ends, when_used="json"),
    WithJsonSchema(_INTERVAL),
]
"""A value with its 95 % confidence interval; in JSON, an unbounded end is null, as in `front.json`."""


class ModelResult(_Told):
    """The best configuration of one model so far, or at the end."""

    model: str = Field(description="Name of the model.")
    trial: int | None = Field(description="Trial of the best configuration; null: none holds the SLO.")
    load: LoadJson | None = Field(None, description="Load of the best operating point.")
    throughput: OpenInterval | None = Field(None, description="Inferences/s.")
    latency_ms: OpenInterval | None = Field(None, description="Latency by the SLO's percentile.")
    percentile: str | None = Field(None, description="The percentile of latency_ms, such as p99.")
    gain: OpenInterval | None = Field(None, description="Best over baseline, by the objective.")
    verified: bool = Field(default=False, description="Whether it was relaunched and measured again.")
    ended: str | None = Field(None, description="Why the search ended; null: it goes on.")
    failure: str | None = Field(None, description="Why the model could not be tuned.")


class Numbered(_Told):
    """An event."""

    seq: int = Field(ge=1, description="1 for the first event, and one more for each; no gap, no repetition.")
    at: datetime = Field(description="When it happened, UTC.")
    version: int = Field(VERSION, description="Version of the events. It counts changes that break readers.")


class StateChanged(Numbered):
    """The job has another state. The last one of an attempt is final."""

    type: Literal["state"] = "state"
    state: JobState = Field(description="The state.")
    reason: str = Field("", description="Why, in one line.")
    attempt: int = Field(1, ge=1, description="One more each time that the job was resumed.")
    exit_code: int | None = Field(
        None, description="Of a final state: exit code of the command with the same options; null if it was lost."
    )
    host: str | None = Field(None, description="Of `starting`: the host that runs the job.")
    slots: tuple[str, ...] = Field((), description="Of `starting`: what the job holds from then on.")


class PhaseBegan(Numbered):
    """A phase of the work begins."""

    type: Literal["phase"] = "phase"
    phase: Phase = Field(description="The phase.")
    model: str | None = Field(None, description="Name of the model; null: all models.")


class Noted(Numbered):
    """A message for people."""

    type: Literal["note"] = "note"
    text: str = Field(description="The message.")


class ModelBegan(Numbered):
    """The tuning of a model begins or is resumed, or its measurement begins."""

    type: Literal["model_began"] = "model_began"
    model: str = Field(description="Name of the model.")
    slo: str = Field(description="The SLO in words; empty: there is none.")
    percentile: str = Field(description="The latency percentile that decides, such as p99.")
    objective: str = Field(description="Name of the objective, such as throughput or latency.p99.")
    budget_s: float | None = Field(
        description="Time for tuning the model, in seconds; null: it is measured, not tuned."
    )


class TrialBegan(Numbered):
    """A trial begins."""

    type: Literal["trial_began"] = "trial_began"
    model: str = Field(description="Name of the model.")
    trial: int = Field(description="Number of the trial; 0 is the baseline. One that was requeued begins again.")
    candidate: str = Field(description="The candidate in words.")
    slot: str = Field("", description="Slot that runs it, as HOST/SLOT; empty: the run has one slot.")


class PointMeasured(Numbered):
    """An operating point was measured."""

    type: Literal["point"] = "point"
    model: str = Field(description="Name of the model.")
    trial: int | None = Field(description="Number of the trial; null: the model was measured, not tuned.")
    point: Point = Field(description="The operating point.")


class TrialEnded(Numbered):
    """A trial is stored, with all of its points."""

    type: Literal["trial_ended"] = "trial_ended"
    model: str = Field(description="Name of the model.")
    trial: int = Field(description="Number of the trial; 0 is the baseline.")
    candidate: str = Field("", description="The candidate in words.")
    parameters: dict[str, Any] = Field(description="Assignment of the search parameters.")
    points: tuple[Point, ...] = Field(description="Operating points in order of load.")
    failure: str | None = Field(None, description="Why it failed; null: it did not.")
    cause: str | None = Field(None, description="Kind of the failure, such as out_of_memory.")
    last_words: str = Field("", description="Last lines of Triton's log before the failure.")
    usable: bool = Field(
        default=True, description="Whether its points may be deployed: it did not fail, and kept the limit on memory."
    )
    imported: bool = Field(default=False, description="Whether an earlier run measured it (warm start).")
    wall_s: float = Field(description="Duration of the trial, in seconds.")
    host: str = Field("", description="Host that measured it; empty: the machine of the run.")


class TrialDropped(Numbered):
    """A trial ends without a result, and does not count."""

    type: Literal["trial_dropped"] = "trial_dropped"
    model: str = Field(description="Name of the model.")
    trial: int = Field(description="Number of the trial.")
    reason: str = Field(description="Why.")


class SlotChanged(Numbered):
    """A slot begins or ends a launch that is no trial. Only of a run with several slots."""

    type: Literal["slot"] = "slot"
    model: str | None = Field(None, description="Name of the model.")
    slot: str = Field(description="Name of the slot, as HOST/SLOT.")
    work: str | None = Field(description="What it does now, in words; null: nothing.")


class WorkRequeued(Numbered):
    """The slot of some work was lost, and another host will do it."""

    type: Literal["requeued"] = "requeued"
    model: str | None = Field(None, description="Name of the model.")
    trial: int | None = Field(None, description="Number of the trial; null: it is no trial.")
    work: str = Field(description="The work in words, such as trial 12.")
    slot: str = Field(description="Slot that was lost, as HOST/SLOT.")
    reason: str = Field(description="How it was lost.")


class HostChanged(Numbered):
    """A host was admitted, left out, lost or drained, or is back."""

    type: Literal["host"] = "host"
    host: str = Field(description="Name of the host.")
    event: HostEvent = Field(description="What happened. drained: it gets no more work. back: it was lost before.")
    reason: str = Field("", description="Why, in one line.")
    host_class: str = Field("", description="Class of hosts that it is compared with; empty: that of the first host.")
    slots: tuple[str, ...] = Field((), description="Of `admitted` and `back`: names of its slots, as HOST/SLOT.")
    description: str = Field("", description="Of `admitted`: what it has, and its Triton.")


class PointVerified(Numbered):
    """A finalist was relaunched; the new measurement replaces that of the search."""

    type: Literal["verified"] = "verified"
    model: str = Field(description="Name of the model.")
    trial: int = Field(description="Number of the trial; 0 is the baseline.")
    load: LoadJson = Field(description="Load of the operating point.")
    rounds: int = Field(description="Number of launches so far.")
    confirming: int = Field(0, description="Number of these after it was chosen.")
    point: Point | None = Field(description="All launches that count, as one operating point; null: it failed.")
    failure: str | None = Field(None, description="Why it failed; null: it did not.")


class FinalistEliminated(Numbered):
    """A finalist cannot win any more under a load."""

    type: Literal["eliminated"] = "eliminated"
    model: str = Field(description="Name of the model.")
    trial: int = Field(description="Number of the trial; 0 is the baseline.")
    load: LoadJson | None = Field(None, description="The load.")
    reason: str = Field(description="Why.")


class BestChanged(Numbered):
    """The best operating point of a model, or what is known of it, has changed."""

    type: Literal["best"] = "best"
    model: str = Field(description="Name of the model.")
    best: ModelResult = Field(description="The best configuration now.")


class ModelEnded(Numbered):
    """The tuning of a model has ended."""

    type: Literal["model_ended"] = "model_ended"
    model: str = Field(description="Name of the model.")
    result: ModelResult = Field(description="The best configuration at the end.")


class NightEnded(Numbered):
    """One night of a model has ended."""

    type: Literal["night_ended"] = "night_ended"
    model: str = Field(description="Name of the model.")
    night: dict[str, Any] = Field(description="An entry of `jobs` in the night's report.")


class ArtifactWritten(Numbered):
    """A file was written."""

    type: Literal["artifact"] = "artifact"
    path: str = Field(description="Its path, relative to the folder of the job or the run.")


Event = Annotated[
    StateChanged
    | PhaseBegan
    | Noted
    | ModelBegan
    | TrialBegan
    | PointMeasured
    | TrialEnded
    | TrialDropped
    | SlotChanged
    | WorkRequeued
    | HostChanged
    | PointVerified
    | FinalistEliminated
    | BestChanged
    | ModelEnded
    | NightEnded
    | ArtifactWritten,
    Field(discriminator="type"),
]

EVENT: TypeAdapter[Event] = TypeAdapter(Event)
