"""What the REST API of the service receives and sends.

Every type is frozen. Times are UTC. Unknown is null, never 0.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from tuner.core.record import Interval
from tuner.jobs.events import FINAL, JobState, ModelResult, OpenInterval

__all__ = ["FINAL", "JobState", "ModelResult"]

JobKind = Literal["tune", "nightly", "measure"]
Role = Literal["read", "submit", "approve", "admin"]
ProposalState = Literal["open", "approved", "rejected", "withdrawn"]

ROLES: tuple[Role, ...] = ("read", "submit", "approve", "admin")
"""From the least to the most; each role may do what those before it may."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def _is_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(f"{value[:40]!r} is not a name; use 1 to 100 letters, digits, '.', '_' and '-'")
    return value


Name = Annotated[str, AfterValidator(_is_name), Field(json_schema_extra={"pattern": f"^{_NAME.pattern}$"})]
"""A name that the user gives to a target, a schedule or a token; it is safe in paths and in HTML."""


class Resource(BaseModel):
    """A part of the REST API."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


Item = TypeVar("Item")


class Page(Resource, Generic[Item]):
    """A part of a list.

    Attributes:
        items: In order of the list.
        next: The cursor of the next part; None: this is the last one.
    """

    items: tuple[Item, ...]
    next: str | None = None


class Problem(Resource):
    """Why a request failed (RFC 9457, `application/problem+json`)."""

    type: str = Field("about:blank", description="Kind of the problem: an address, or about:blank.")
    title: str = Field(description="The problem in a few words.")
    status: int = Field(description="Status code of the response.")
    detail: str = Field("", description="What is wrong, where, and the fix.")
    errors: tuple[str, ...] = Field((), description="Each wrong field, in a line.")


class Submission(Resource):
    """A new job."""

    kind: JobKind = Field("tune", description="tune, nightly (one night of the target), or measure.")
    job: dict[str, Any] = Field(
        default_factory=dict,
        description=(
            "Options, as in a job file of `tritontune run` (tune), an entry of a nightly job file (nightly), "
            "or the options of `tritontune measure` (measure). A secret is a reference: ${NAME}."
        ),
    )
    target: Name | None = Field(None, description="Target whose options are the defaults of `job`.")
    priority: Annotated[int, Field(ge=-100, le=100)] = Field(0, description="Jobs of a higher priority start first.")


class JobProgress(Resource):
    """How far a job is."""

    trials: int = Field(0, description="Number of trials that ended, over all models.")
    failed_trials: int = Field(0, description="Number of these that failed.")
    points: int = Field(0, description="Number of operating points measured.")
    budget_s: float | None = Field(None, description="Time for tuning each model, in seconds.")


class Job(Resource):
    """A job, as it is now."""

    id: Annotated[int, Field(ge=1)] = Field(description="Its number.")
    kind: JobKind = Field(description="What the job does: tune, nightly or measure.")
    state: JobState = Field(description="State of the job; final states never change.")
    phase: str | None = Field(None, description="Part of the work: baseline, search, verification, certification, ...")
    reason: str = Field("", description="Why the job is in this state; of a queued one, what it waits for.")
    target: str | None = Field(None, description="Name of its target.")
    models: tuple[str, ...] = Field((), description="Models by the submission; those that ran are in `results`.")
    repository: str | None = Field(None, description="Model repository, as a path on the service's machine.")
    slo: str = Field("", description="The SLO in words.")
    priority: int = Field(0, description="Jobs of a higher priority start first.")
    attempt: int = Field(1, description="1, or 2 after the process of the job was lost.")
    retry_of: int | None = Field(None, description="Job that this one repeats.")
    schedule: str | None = Field(None, description="Schedule that submitted the job.")
    submitted_by: str = Field("", description="Name of the token.")
    created_at: datetime = Field(description="When it was submitted.")
    started_at: datetime | None = Field(None, description="When it got its slots.")
    ended_at: datetime | None = Field(None, description="When it ended.")
    host: str | None = Field(None, description="Host that runs it.")
    slots: tuple[str, ...] = Field((), description="Slots that it holds: gpu:0, cpu:0, ...")
    exit_code: int | None = Field(None, description="Exit code of the command with the same options.")
    progress: JobProgress = Field(JobProgress(), description="How far it is.")
    results: tuple[ModelResult, ...] = Field(
        (), description="The best configuration of each model, so far or at the end."
    )
    job: dict[str, Any] = Field(default_factory=dict, description="The submitted options, with secrets as references.")
    version: int = Field(1, description="Number of changes; the ETag.")

    @property
    def is_final(self) -> bool:
        """Whether the state never changes again."""
        return self.state in FINAL


class Policy(Resource):
    """What the service does with a better configuration of a target."""

    action: Literal["propose", "apply"] = Field("propose", description="propose: wait for approval. apply: deploy it.")
    min_gain: Annotated[float, Field(ge=0, lt=10)] = Field(
        0.03, description="Smallest gain to act on, as a share: the gain's lower bound must exceed it."
    )
    min_regression: Annotated[float, Field(ge=0, lt=10)] = Field(
        0.10, description="Smallest slowdown to report, as a share."
    )


class TargetSpec(Resource):
    """What is looked after: models of a repository with their SLO and load."""

    job: dict[str, Any] = Field(
        description="Options as in a job file: repository, model, slo, budget, and the load. Secrets are references."
    )
    policy: Policy = Field(Policy(), description="What the service does with a better configuration.")
    description: Annotated[str, Field(max_length=1000)] = Field("", description="What it is, for people.")


class DeployedPoint(Resource):
    """The deployed configuration of a model, as it was last measured."""

    model: str = Field(description="Name of the model.")
    measured_at: datetime = Field(description="When it was measured.")
    throughput: Interval | None = Field(None, description="Inferences/s.")
    latency_ms: Interval | None = Field(None, description="Latency by the percentile.")
    percentile: str | None = Field(None, description="The percentile of latency_ms, such as p99.")
    holds_slo: bool | None = Field(None, description="Whether it holds the SLO.")
    gain_on_offer: Interval | None = Field(None, description="Gain of the open proposal.")
    last_night: str | None = Field(None, description="Outcome: kept, improved, regression or failed.")
    trend: tuple[float, ...] = Field((), description="Throughput of the last nights, the oldest first.")


class Target(Resource):
    """A target, with the state of its deployed configurations."""

    name: Name = Field(description="Name of the target.")
    job: dict[str, Any] = Field(description="Options as in a job file.")
    policy: Policy = Field(Policy(), description="What the service does with a better configuration.")
    description: str = Field("", description="What it is, for people.")
    created_at: datetime = Field(description="When it was added.")
    updated_at: datetime = Field(description="When it was last changed.")
    deployed: tuple[DeployedPoint, ...] = Field(
        (), description="Its deployed configurations, as they were last measured."
    )
    version: int = Field(1, description="Number of changes; the ETag.")


class ScheduleSpec(Resource):
    """When a job is submitted by itself."""

    cron: Annotated[str, Field(max_length=200)] = Field(description="Five fields: minute, hour, day, month, weekday.")
    timezone: str = Field("UTC", description="Time zone by its IANA name, such as Europe/Berlin.")
    target: Name = Field(description="Target to look after.")
    kind: JobKind = Field("nightly", description="Kind of the jobs.")
    window: str = Field("8h", description="Time within which the job must start; a night also ends within it.")
    priority: Annotated[int, Field(ge=-100, le=100)] = Field(0, description="Jobs of a higher priority start first.")
    enabled: bool = Field(default=True, description="Whether it submits jobs.")


class Schedule(ScheduleSpec):
    """A schedule."""

    name: Name = Field(description="Name of the schedule.")
    created_at: datetime = Field(description="When it was added.")
    updated_at: datetime = Field(description="When it was last changed.")
    next_at: datetime | None = Field(None, description="Next start; null: disabled.")
    last_job: int | None = Field(None, description="The job that it submitted last.")
    note: str = Field("", description="Why the last start was left out, if it was.")
    version: int = Field(1, description="Number of changes; the ETag.")


class Proposal(Resource):
    """A better configuration that waits for a decision.

    Approving deploys its files, all or none.
    """

    id: Annotated[int, Field(ge=1)] = Field(description="Its number.")
    state: ProposalState = Field(description="open, or how it was decided.")
    job: int = Field(description="Job that found it.")
    target: str | None = Field(None, description="Name of the target of the job.")
    repository: str = Field(description="Model repository that approval deploys to.")
    model: str = Field(description="Name of the model.")
    created_at: datetime = Field(description="When the job proposed it.")
    decided_at: datetime | None = Field(None, description="When it was decided.")
    decided_by: str | None = Field(None, description="Name of the token that decided.")
    reason: str = Field("", description="Why it was rejected or withdrawn, or what was deployed.")
    diff: str = Field(description="Unified diff from the deployed to the proposed files.")
    to_set: tuple[str, ...] = Field((), description="What a person must set beside the files, such as an argument.")
    gain: Interval | None = Field(None, description="Proposed over deployed configuration, by the objective.")
    throughput: Interval | None = Field(None, description="Inferences/s of the proposed configuration.")
    latency_ms: Interval | None = Field(None, description="Its latency by the percentile.")
    percentile: str | None = Field(None, description="The percentile of latency_ms, such as p99.")
    verified: bool = Field(default=False, description="Whether both were relaunched and measured again.")
    evidence: str = Field("", description="The comparison in words.")
    version: int = Field(1, description="Number of changes; the ETag.")


class Slot(Resource):
    """A part of a host that one job uses at a time."""

    name: str = Field(description="Name of the slot, such as gpu:0.")
    description: str = Field(description="What it is, for people.")
    job: int | None = Field(None, description="Job that holds it.")


class Host(Resource):
    """A machine that runs jobs."""

    name: str = Field(description="Name of the machine.")
    description: str = Field(description="What it has, for people.")
    slots: tuple[Slot, ...] = Field(description="Its slots.")
    running: int = Field(description="Number of jobs that run on it.")
    queued: int = Field(description="Number of jobs that wait.")


class JobSlot(Resource):
    """A slot of a job, which runs one trial at a time."""

    name: str = Field(description="Name of the slot, as HOST/SLOT.")
    work: str | None = Field(None, description="What it does now, in words; null: nothing.")
    model: str | None = Field(None, description="Model of the work.")
    trial: int | None = Field(None, description="Trial that it runs; null: none, or the work is no trial.")


class JobHost(Resource):
    """A host that a job uses, or would have used."""

    name: str = Field(description="Name of the host.")
    state: Literal["admitted", "left_out", "lost", "drained"] = Field(
        description="admitted: it gets work. left_out: it differs. lost: it cannot be reached. drained: no more work."
    )
    reason: str = Field("", description="Why it is in this state.")
    host_class: str = Field("", description="Class of hosts that it is compared with; empty: that of the first host.")
    description: str = Field("", description="What it has, for people.")
    slots: tuple[JobSlot, ...] = Field((), description="Its slots.")


class TokenSpec(Resource):
    """A new token."""

    name: Name = Field(description="Name of the token, which jobs and decisions show.")
    role: Role = Field(description="What it may do; each role may do what those before it may.")
    expires_at: datetime | None = Field(None, description="When it expires; null: never.")


class Token(Resource):
    """A token, without its secret."""

    id: str = Field(description="Id of the token; no secret.")
    name: Name = Field(description="Name of the token.")
    role: Role = Field(description="What it may do.")
    created_at: datetime = Field(description="When it was made.")
    expires_at: datetime | None = Field(None, description="When it expires; null: never.")
    last_used_at: datetime | None = Field(None, description="When it was last used, to within some minutes.")


class NewToken(Token):
    """A token with its secret, which is shown once."""

    secret: str = Field(description="The token for `Authorization: Bearer`; only this response has it.")


class Trial(Resource):
    """A trial of a job, as its events tell it."""

    model: str = Field(description="Name of the model.")
    number: int = Field(description="Number of the trial; 0 is the baseline.")
    candidate: str = Field(description="The candidate in words.")
    parameters: dict[str, Any] = Field(default_factory=dict, description="Assignment of the search parameters.")
    state: Literal["running", "measured", "failed"] = Field(description="Whether it runs, was measured, or failed.")
    failure: str | None = Field(None, description="Why it failed.")
    cause: str | None = Field(None, description="Kind of the failure, such as out_of_memory.")
    last_words: str = Field("", description="Last lines of Triton's log before the failure.")
    points: tuple[dict[str, Any], ...] = Field((), description="Operating points, as POINT in front.json.")
    wall_s: float | None = Field(None, description="Duration in seconds.")
    host: str = Field("", description="Host that measured it; empty: the machine of the job.")


class FrontPoint(Resource):
    """A point of the front, which no other one beats in both the objective and latency; or the recommended point."""

    model: str = Field(description="Name of the model.")
    trial: int = Field(description="Number of the trial; 0 is the baseline.")
    load: dict[str, Any] = Field(description="Its load, as in front.json.")
    throughput: OpenInterval = Field(description="Inferences/s.")
    latency_ms: OpenInterval = Field(description="Latency by the percentile.")
    percentile: str = Field(description="The percentile of latency_ms, such as p99.")
    objective_value: OpenInterval | None = Field(None, description="Value of the objective, in its unit.")
    verified: bool = Field(default=False, description="Whether it was relaunched and measured again.")
    best: bool = Field(default=False, description="Whether it is the recommended one.")
    on_front: bool = Field(
        default=True,
        description="False of a recommended point that one beats that was measured only once, so may have been lucky.",
    )


class Front(Resource):
    """The front of each model of a job, in order of throughput."""

    points: tuple[FrontPoint, ...] = Field(description="The points of all models.")
    percentile: str = Field(description="The percentile of the latencies.")
    slo: str = Field("", description="The SLO in words.")


class NightEntry(Resource):
    """One night of one model."""

    night: datetime = Field(description="When the night began.")
    target: str | None = Field(None, description="Name of the target.")
    repository: str = Field(description="Model repository.")
    model: str = Field(description="Name of the model.")
    outcome: str = Field(description="kept, improved, regression or failed.")
    reason: str = Field(description="Why.")
    regression: bool = Field(default=False, description="Whether the deployed configuration got slower.")
    action: str = Field("", description="What was done with an improvement.")
    throughput: Interval | None = Field(None, description="Inferences/s of the deployed configuration.")
    latency_ms: Interval | None = Field(None, description="Its latency by the percentile.")
    percentile: str | None = Field(None, description="The percentile of latency_ms, such as p99.")
    gain: Interval | None = Field(None, description="Candidate over deployed configuration.")


class Artifact(Resource):
    """A file of a job."""

    path: str = Field(description="Path within the job's folder.")
    size: int = Field(description="Size in bytes.")
    modified_at: datetime = Field(description="When it was last written.")


class Decision(Resource):
    """A decision on a proposal."""

    reason: Annotated[str, Field(max_length=1000)] = Field("", description="Why, for others.")
