"""One trial: one candidate, launched once, measured under rising load. A failure becomes data."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from tritonclient.grpc import model_config_pb2

from tuner.config.config import ModelConfig
from tuner.config.instances import instance_count
from tuner.config.staging import StagedRepository
from tuner.config.tunable import why_not_tunable
from tuner.core.atomic_file import write_atomically
from tuner.core.errors import Cause, ServerError, TuningError, UsageError
from tuner.core.loads import Concurrency, Load
from tuner.core.record import Record
from tuner.core.slo import SLO
from tuner.measure.gpu import NO_GPUS, Gpus
from tuner.measure.gpu_view import GpuMemory
from tuner.measure.gpu_watch import GpuWatch
from tuner.measure.level import Deadline, LevelCutError
from tuner.measure.plan import Plan, points_of
from tuner.measure.points import OperatingPoint
from tuner.measure.rules import LevelRules
from tuner.measure.session import Session, open_session
from tuner.measure.sweep import in_order_of_load, sweep
from tuner.options.groups import LoadOptions
from tuner.servers.callees import Callees
from tuner.servers.protocols import Launch, Launcher, Server
from tuner.space.candidate import Candidate
from tuner.space.spec import LadderValue

_TEMPORARY = (
    "# The model repository and the folders tritontune-... named below went with this server. To start it again, name "
    "a repository of your own with this trial's config.pbtxt; `tritontune export --to DIR` makes one of the best."
)
FAILURE = "failure.txt"
"""Why a trial failed, in its folder: all of what a terminal shows the ends of."""


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
        launch_s: Seconds until the model was ready; None when it never was.
        first_answer_s: Seconds that its first answer took; None when there was none.
        wall_s: Seconds from launch to stop.
        gpu_memory: What it took of a GPU; None where it uses none, or nobody says.
        imported: Whether an earlier run launched it, under the same conditions.
    """

    number: int
    parameters: Mapping[str, LadderValue]
    config: str
    effective_config: str | None
    curve: tuple[OperatingPoint, ...]
    failure: Failure | None
    launch_s: float | None
    first_answer_s: float | None
    wall_s: float
    gpu_memory: GpuMemory | None = None
    imported: bool = False

    @property
    def deployable_config(self) -> str:
        """The text of a config.pbtxt that gives this server, also for a model that has none of its own."""
        return self.config or self.effective_config or ""


@dataclass(frozen=True)
class TrialContext:
    """What stays the same over the trials of a model.

    Attributes:
        options: What requests are made of, and how they are sent.
        rules: When a load level has been measured well enough.
        gpus: Those that the launcher's servers see.
        max_gpu_memory: Bytes that a server may take of each; None: all that there is.
        shapes_elsewhere: Whether shapes of inputs that the model has not are for other models.
        callees: The models that are loaded beside it.
    """

    launcher: Launcher
    repository: StagedRepository
    model: str
    options: LoadOptions
    slo: SLO
    rules: LevelRules
    max_concurrency: int
    gpus: Gpus = NO_GPUS
    max_gpu_memory: int | None = None
    shapes_elsewhere: bool = False
    callees: Callees = field(default_factory=lambda: Callees(""))


@dataclass(frozen=True)
class Limits:
    """How long one trial may take.

    Attributes:
        launch_s: Seconds until the model must be ready.
        first_answer_s: Seconds that its first answer may take.
        until: When to end the load level under way, unless it is the first (`time.monotonic`); what was measured by
            then counts.
    """

    launch_s: float
    first_answer_s: float
    until: float


class TrialProgress(Protocol):
    """Is told how a trial goes."""

    def level_began(self, load: Load) -> None:
        """A load level is about to be measured."""

    def point_measured(self, point: OperatingPoint) -> None:
        """A load level was measured."""


Examine = Callable[[Session], None]
"""Looks at a server before it is measured; a `ServerError` that it raises is the trial's failure."""


# A dynamic batcher prepares two batches an instance ahead; below about twice that, growth means nothing yet.
_REQUESTS_AN_INSTANCE = 4


def run_trial(
    context: TrialContext,
    candidate: Candidate,
    number: int,
    folder: Path,
    *,
    limits: Limits,
    progress: TrialProgress,
    also: Concurrency | None = None,
    examine: Examine = lambda _session: None,
) -> TrialResult:
    """Launch a candidate, sweep the load upward, stop.

    Args:
        context: What the trials of this model share.
        candidate: What to launch.
        number: The trial's number in the study.
        folder: Where its config, launch command and server log are kept; made here.
        limits: On its time.
        progress: Told of each load level as it comes.
        also: A load to measure besides those of the sweep, to compare; not where a lower one breaks the SLO.
        examine: Comes before the first load level.

    Raises:
        InputError: requests cannot be made for the baseline.
        TuningError: the baseline is of a kind that cannot be tuned; or the launcher itself does not work.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "config.pbtxt", candidate.config.text)
    context.repository.write_config(context.model, candidate.config.text or None)
    attempt = _Attempt()
    failure = None
    gpus = context.gpus.watch()
    try:
        launch = _launch(context, folder, limits)
        with gpus, context.launcher.launch(launch) as server:
            attempt.launched()
            write_atomically(folder / "command.txt", f"{_TEMPORARY}\n{server.command}\n")
            with _faults_are_its_own(candidate=number > 0):
                _measure(context, server, gpus, attempt, limits, progress, also, examine)
    except ServerError as error:
        failure = Failure(cause=error.cause, message=str(error), last_words=error.last_words)
        write_atomically(folder / FAILURE, f"{failure.cause.value}: {failure.message}\n\n{failure.last_words}")
    return TrialResult(
        number=number,
        parameters=candidate.parameters,
        config=candidate.config.text,
        effective_config=attempt.effective_config,
        curve=in_order_of_load(attempt.points),
        failure=failure,
        launch_s=attempt.launch_s,
        first_answer_s=attempt.first_answer_s,
        wall_s=attempt.age_s(),
        gpu_memory=gpus.memory,
    )


def measure_again(
    context: TrialContext, config: str, loads: Iterable[Load], folder: Path, *, limits: Limits
) -> Iterator[OperatingPoint]:
    """Launch a config anew, and measure it under some loads, one after the other; see `launch_again`."""
    with launch_again(context, config, folder, limits=limits) as session:
        for load in loads:
            yield session.measure(load)


@contextmanager
def launch_again(
    context: TrialContext, config: str, folder: Path, *, limits: Limits, candidate: bool = True
) -> Iterator[Session]:
    """Launch a config anew, ready to be measured or asked.

    Args:
        context: As for the trials.
        config: Its text.
        folder: Where the server's log goes, if it has one.
        limits: On the launch and the first answer.
        candidate: Whether it is one of ours, and not the config as it is, whose faults are the user's to mend.

    Raises:
        ServerError: it failed this time.
    """
    context.repository.write_config(context.model, config or None)
    launch = _launch(context, folder, limits)
    with (
        context.gpus.watch() as gpus,
        context.launcher.launch(launch) as server,
        _faults_are_its_own(candidate=candidate),
        _session(context, server, gpus, limits) as session,
    ):
        yield session


@contextmanager
def _faults_are_its_own(*, candidate: bool) -> Iterator[None]:
    """What goes wrong with a candidate's server, be it that it takes no such requests, is the candidate's failure."""
    try:
        yield
    except (UsageError, TuningError) as error:
        if not candidate:
            raise
        raise ServerError(str(error), cause=Cause.REQUESTS_FAILED) from error


class _Attempt:
    """What a trial has gathered so far; a failure midway leaves the rest."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.launch_s: float | None = None
        self.first_answer_s: float | None = None
        self.effective_config: str | None = None
        self.points: list[OperatingPoint] = []

    def age_s(self) -> float:
        return time.monotonic() - self._began

    def launched(self) -> None:
        self.launch_s = self.age_s()


def _measure(  # noqa: PLR0917 (it is called at one place, just above)
    context: TrialContext,
    server: Server,
    gpus: GpuWatch,
    attempt: _Attempt,
    limits: Limits,
    progress: TrialProgress,
    also: Concurrency | None,
    examine: Examine,
) -> None:
    with _session(context, server, gpus, limits) as session:
        if reason := why_not_tunable(session.effective):
            raise TuningError(f"model {context.model!r}: {reason}")
        attempt.effective_config = ModelConfig.from_proto(session.effective).text
        attempt.first_answer_s = session.first_answer_s
        examine(session)

        def measure(load: Concurrency) -> OperatingPoint:
            progress.level_began(load)
            # Without the first, a trial would tell nothing.
            return session.measure(load, Deadline(limits.until) if attempt.points else None)

        plan = _plan(context, _flat_from(session.effective), also)
        with suppress(LevelCutError):
            for point in points_of(plan, measure):
                attempt.points.append(point)
                progress.point_measured(point)
                if time.monotonic() >= limits.until:
                    return


def _plan(context: TrialContext, flat_from: int, also: Concurrency | None) -> Plan[Concurrency, None]:
    points = yield from sweep(
        slo=context.slo, max_concurrency=context.max_concurrency, flat_from=flat_from, rivals=context.rules.rivals
    )
    yield from _one_more(also, points, context.slo)


def _one_more(load: Concurrency | None, points: Sequence[OperatingPoint], slo: SLO) -> Plan[Concurrency, None]:
    """This load, unless there is a point under it already, or a lower load breaks the SLO."""
    if load and all(point.load != load and point.holds(slo) for point in points if point.load.level <= load.level):
        yield load


def _launch(context: TrialContext, folder: Path, limits: Limits) -> Launch:
    log = folder / "server.log"
    return Launch(context.repository.path, context.model, log, limits.launch_s, context.callees.names)


def _session(context: TrialContext, server: Server, gpus: GpuWatch, limits: Limits) -> AbstractContextManager[Session]:
    def supply(error: ServerError) -> None:
        context.callees.supply(error, server, within_s=limits.launch_s)

    return open_session(
        replace(server.endpoint, headers=context.options.header),
        context.model,
        context.options,
        rules=context.rules,
        health=server.check,
        first_answer_within_s=limits.first_answer_s,
        usage=server.usage,
        gpus=gpus,
        shapes_elsewhere=context.shapes_elsewhere,
        supply=supply,
    )


def _flat_from(effective: model_config_pb2.ModelConfig) -> int:
    """The concurrency below which throughput that does not grow means nothing yet."""
    instances = instance_count(effective)
    return _REQUESTS_AN_INSTANCE * instances if effective.HasField("dynamic_batching") else instances
