"""The events of a job: `events.jsonl`, one numbered object a line.

The service, the dashboard, the console of `tritontune jobs --watch` and tests read the same stream.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from tuner.core.record import Record

VERSION = 1
"""Counts breaking changes of the events."""

FINAL_STATES = frozenset({"succeeded", "failed", "cancelled", "lost"})
"""States of a job that never change again."""

FILE = "events.jsonl"
"""Name of the file in the folder of a job or a run."""


class Numbered(Record):
    """An event.

    Attributes:
        seq: 1 for the first event of a job, and one more for each; no gap, no repetition.
        at: When it happened, UTC.
        version: See `VERSION`.
    """

    # Fields that only later versions know are ignored.
    model_config = ConfigDict(extra="ignore")

    seq: int
    at: datetime
    version: int = VERSION


class StateChanged(Numbered):
    """The job has another state. The last one is final.

    Attributes:
        state: A `JobState` of `tuner.client.resources`.
        reason: Why, in one line.
        attempt: 1, or 2 after the process was lost.
        exit_code: Of a final state: the exit code of the command with the same options.
        host: Of `starting`: the host that runs the job.
        slots: Of `starting`: what the job holds from then on.
    """

    type: Literal["state"] = "state"
    state: str
    reason: str = ""
    attempt: int = 1
    exit_code: int | None = None
    host: str | None = None
    slots: tuple[str, ...] = ()


class PhaseBegan(Numbered):
    """A phase of the work: `baseline`, `search`, `verification`, `certification`, `explanation`, `report`, ..."""

    type: Literal["phase"] = "phase"
    phase: str
    model: str | None = None


class Noted(Numbered):
    """A message for people."""

    type: Literal["note"] = "note"
    text: str


class ModelBegan(Numbered):
    """The tuning of a model begins or is resumed."""

    type: Literal["model_began"] = "model_began"
    model: str
    slo: str
    percentile: str
    objective: str
    budget_s: float


class TrialBegan(Numbered):
    """A trial begins; `candidate` describes it in words."""

    type: Literal["trial_began"] = "trial_began"
    model: str
    trial: int
    candidate: str


class PointMeasured(Numbered):
    """An operating point was measured; `point` is a POINT of `front.json`."""

    type: Literal["point"] = "point"
    model: str
    trial: int | None
    point: dict[str, Any]


class TrialEnded(Numbered):
    """A trial is stored, with all of its points."""

    type: Literal["trial_ended"] = "trial_ended"
    model: str
    trial: int
    parameters: dict[str, Any]
    points: tuple[dict[str, Any], ...]
    failure: str | None = None
    wall_s: float


class BestChanged(Numbered):
    """Another operating point is the best one; `best` is a ModelResult of the REST API."""

    type: Literal["best"] = "best"
    model: str
    best: dict[str, Any]


class FinalistEliminated(Numbered):
    """A finalist cannot win any more."""

    type: Literal["eliminated"] = "eliminated"
    model: str
    trial: int
    reason: str


class ModelEnded(Numbered):
    """The tuning of a model has ended; `result` is a ModelResult of the REST API."""

    type: Literal["model_ended"] = "model_ended"
    model: str
    result: dict[str, Any]


class NightEnded(Numbered):
    """One night of a model has ended; `night` is a job of the night's report.json."""

    type: Literal["night_ended"] = "night_ended"
    model: str
    night: dict[str, Any]


class ArtifactWritten(Numbered):
    """A file was written; `path` is relative to the folder of the job or the run."""

    type: Literal["artifact"] = "artifact"
    path: str


Event = Annotated[
    StateChanged
    | PhaseBegan
    | Noted
    | ModelBegan
    | TrialBegan
    | PointMeasured
    | TrialEnded
    | BestChanged
    | FinalistEliminated
    | ModelEnded
    | NightEnded
    | ArtifactWritten,
    Field(discriminator="type"),
]

EVENT: TypeAdapter[Event] = TypeAdapter(Event)
