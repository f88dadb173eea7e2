"""One trial: one candidate, launched once, measured under rising load. A failure becomes data."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tuner.errors import Cause, ServerError, TuningError
from tuner.load.grpc_aio import GrpcAioEngine, ask_once
from tuner.load.inputs import make_inputs
from tuner.load.protocols import Concurrency, LoadEngine
from tuner.load.requests import build_requests
from tuner.measure.level import LevelRules, measure_level
from tuner.measure.points import OperatingPoint, Record
from tuner.measure.sweep import sweep
from tuner.models.config import ModelConfig
from tuner.models.interface import ModelInterface
from tuner.models.staging import StagedRepository
from tuner.models.tunable import why_not_tunable
from tuner.servers.client import TritonClient
from tuner.servers.protocols import Launch, Launcher, Server
from tuner.slo import SLO
from tuner.space.candidate import Candidate
from tuner.space.spec import LadderValue


class Failure(Record):
    """Why a trial has no result, or only the first part of one.

    Attributes:
        cause: The kind of failure.
        message: One line.
        last_words: What Triton wrote last.
    """

    cause: Cause
    message: str
    last_words: str = ""


class TrialResult(Record):
    """What one launch told.

    Attributes:
        number: Its place in the study, from 0, the baseline.
        parameters: The candidate's assignment; empty for the baseline.
        config: The text of the candidate's config.pbtxt.
        effective_config: As the server completed it, when it became ready.
        curve: Operating points in order of load.
        failure: Why there is no more of them, if so.
        launch_s: Seconds until the model was ready.
        wall_s: Seconds from launch to stop.
    """

    number: int
    parameters: Mapping[str, LadderValue]
    config: str
    effective_config: str | None
    curve: tuple[OperatingPoint, ...]
    failure: Failure | None
    launch_s: float
    wall_s: float

    @property
    def deployable_config(self) -> str:
        """The text of a config.pbtxt that gives this server, also for a model that has none of its own."""
        return self.config or self.effective_config or ""


@dataclass(frozen=True)
class Bench:
    """What stays the same over the trials of a model.

    Attributes:
        shapes: Dimensions for inputs of variable shape.
        rules: When a load level has been measured well enough.
    """

    launcher: Launcher
    repository: StagedRepository
    model: str
    shapes: Mapping[str, tuple[int, ...]]
    slo: SLO
    rules: LevelRules
    max_concurrency: int
    seed: int


@dataclass(frozen=True)
class Limits:
    """How long one trial may take.

    Attributes:
        launch_s: Seconds until the model must be ready.
        until: When to begin no further load level (`time.monotonic`); what was measured by then counts.
    """

    launch_s: float
    until: float


class TrialProgress(Protocol):
    """Is told how a trial goes."""

    def level_began(self, concurrency: int) -> None:
        """A load level is about to be measured."""

    def point_measured(self, point: OperatingPoint) -> None:
        """A load level was measured."""


# A pool of different requests, so that a response cache does not look miraculous.
_REQUEST_POOL = 16


def run_trial(
    bench: Bench, candidate: Candidate, number: int, folder: Path, *, limits: Limits, progress: TrialProgress
) -> TrialResult:
    """Launch a candidate, sweep the load upward, stop.

    Args:
        bench: What the trials of this model share.
        candidate: What to launch.
        number: The trial's number in the study.
        folder: Where its config, launch command and server log are kept; made here.
        limits: On its time.
        progress: Told of each load level as it comes.

    Raises:
        InputError: requests cannot be made for the model.
        TuningError: the model is of a kind that cannot be tuned.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.pbtxt").write_text(candidate.config.text, encoding="utf-8")
    bench.repository.write_config(bench.model, candidate.config.text or None)
    began = time.monotonic()
    attempt = _Attempt(began)
    failure = None
    try:
        launch = Launch(bench.repository.path, bench.model, folder / "server.log", limits.launch_s)
        with bench.launcher.launch(launch) as server:
            attempt.ready()
            (folder / "command.txt").write_text(server.command + "\n", encoding="utf-8")
            _measure(bench, server, attempt, limits.until, progress)
    except ServerError as error:
        failure = Failure(cause=error.cause, message=str(error), last_words=error.last_words)
    return TrialResult(
        number=number,
        parameters=candidate.parameters,
        config=candidate.config.text,
        effective_config=attempt.effective_config,
        curve=tuple(sorted(attempt.points, key=lambda point: point.concurrency)),
        failure=failure,
        launch_s=attempt.launch_s or time.monotonic() - began,
        wall_s=time.monotonic() - began,
    )


class _Attempt:
    """What a trial has gathered so far; a failure midway leaves the rest."""

    def __init__(self, began: float) -> None:
        self._began = began
        self.launch_s: float | None = None
        self.effective_config: str | None = None
        self.points: list[OperatingPoint] = []

    def ready(self) -> None:
        self.launch_s = time.monotonic() - self._began


def _measure(bench: Bench, server: Server, attempt: _Attempt, until: float, progress: TrialProgress) -> None:
    with TritonClient(server.grpc_address) as client:
        effective = client.model_config(bench.model)
        attempt.effective_config = ModelConfig.from_proto(effective).text
        if reason := why_not_tunable(effective):
            raise TuningError(f"model {bench.model!r} cannot be tuned: {reason}")
        inputs = make_inputs(ModelInterface.of(effective), shapes=bench.shapes, pool=_REQUEST_POOL, seed=bench.seed)
        requests = build_requests(bench.model, inputs)
        latency_s = ask_once(server.grpc_address, requests[0], timeout_s=bench.rules.request_timeout_s)
