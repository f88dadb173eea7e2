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
from tuner.config.patch import NO_CHANGES, Patch, write_patch
from tuner.config.staging import StagedRepository
from tuner.config.tunable import why_not_tunable
from tuner.core.atomic_file import write_atomically
from tuner.core.errors import Cause, ServerError, TuningError, UsageError
from tuner.core.loads import Concurrency, Load, RequestRate
from tuner.core.objectives import THROUGHPUT, Objective
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
from tuner.space.caches import with_caches
from tuner.space.candidate import Candidate
from tuner.space.spec import LadderValue

_TEMPORARY = (
    "# The repository and the tritontune-... folders named below were temporary. To start this server again, use a "
    "copy of your repository with this trial's config.pbtxt. `tritontune export --to DIR` makes one with the best "
    "config."
)
FAILURE = "failure.txt"
"""The file in a trial's folder with the whole reason of its failure; a terminal shows parts of it."""


class Failure(Record):
    """The reason why a trial has no curve, or only the first part of one.

    Attributes:
        cause: The kind of failure.
        message: The reason, in one line.
        last_words: The last lines that Triton wrote.
    """

    cause: Cause
    message: str
    last_words: str = ""


class TrialResult(Record):
    """The result of one trial.

    Attributes:
        number: Its number in the study; 0 is the baseline.
        parameters: The candidate's assignment; empty for the baseline.
        config: The text of the candidate's config.pbtxt.
        others: Its other files, arguments and variables.
        effective_config: The config as the server completed it; None if it never became ready.
        curve: Operating points in order of load.
        failure: Why the curve is missing or incomplete; None: no failure.
        launch_s: Seconds until the model was ready; None if it never was.
        first_answer_s: Seconds that the first answer took; None if there was none.
        wall_s: Seconds from launch to stop.
        gpu_memory: GPU memory that it took; None if it uses no GPU, or unknown.
        imported: Whether the result is from an earlier run, under the same conditions.
        output_difference: The largest difference of its outputs from the baseline's, of a candidate that may differ.
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
    others: Patch = NO_CHANGES
    output_difference: str = ""

    @property
    def patch(self) -> Patch:
        """Everything that the candidate set."""
        return self.others.with_config(self.config)

    @property
    def deployable_config(self) -> str:
        """The config.pbtxt to deploy: the candidate's, or the effective config of a model without a file."""
        return self.config or self.effective_config or ""

    @property
    def deployable(self) -> Patch:
        """The patch to deploy."""
        return self.others.with_config(self.deployable_config)


@dataclass(frozen=True)
class TrialContext:
    """The context that all trials of a model share.

    Attributes:
        launcher: Launches the servers.
        repository: The staged repository with the model.
        model: The model's name.
        options: The contents of requests, and how they are sent.
        rules: The rules by which the measurement of a load level ends.
        max_concurrency: The highest concurrency of the sweep.
        gpus: The GPUs that the launcher's servers see.
        max_gpu_memory: Bytes of each GPU that a server may use; None: no limit.
        shapes_elsewhere: Whether `--shape` for inputs that the model lacks is for other models.
        callees: The models that are loaded beside it.
        objective: The objective; its rate, if it has one, replaces the sweep.
        caches: The folder of engines that launches share; None: servers run elsewhere.
    """

    launcher: Launcher
    repository: StagedRepository
    model: str
    options: LoadOptions
    rules: LevelRules
    max_concurrency: int
    gpus: Gpus = NO_GPUS
    max_gpu_memory: int | None = None
    shapes_elsewhere: bool = False
    callees: Callees = field(default_factory=lambda: Callees(""))
    objective: Objective = THROUGHPUT
    caches: Path | None = None

    @property
    def slo(self) -> SLO:
        """The limits that a candidate must hold."""
        return self.rules.slo


@dataclass(frozen=True)
class Limits:
    """Time limits of one trial.

    Attributes:
        launch_s: Seconds until the model must be ready.
        first_answer_s: Seconds that its first answer may take.
        until: Deadline of load levels after the first one (`time.monotonic`). A level that it ends counts if it has
            enough answers.
    """

    launch_s: float
    first_answer_s: float
    until: float


class TrialProgress(Protocol):
    """Called with the progress of a trial."""

    def level_began(self, load: Load) -> None:
        """A load level is about to be measured."""

    def point_measured(self, point: OperatingPoint) -> None:
        """A load level was measured."""


Examine = Callable[[Session], None]
"""Checks a server before it is measured; a `ServerError` that it raises fails the trial."""


# A dynamic batcher prepares up to two batches per instance; below about twice that, flat throughput is no sign of
# saturation.
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
        context: The context of the model's trials.
        candidate: The candidate to launch.
        number: The trial's number in the study.
        folder: The folder for its config, launch command and server log; created here.
        limits: Time limits.
        progress: Called with each load level.
        also: A load to measure in addition to the sweep, for comparison, unless a lower one violates the SLO.
        examine: Called before the first load level.

    Raises:
        InputError: requests cannot be made for the baseline.
        TuningError: the baseline cannot be tuned, or the launcher does not work.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_patch(folder, context.model, candidate.patch)
    attempt = _Attempt()
    failure = None
    gpus = context.gpus.watch()
    try:
        launch = _launch(context, candidate.patch, folder, limits)
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
        others=candidate.others,
        effective_config=attempt.effective_config,
        curve=in_order_of_load(attempt.points),
        failure=failure,
        launch_s=attempt.launch_s,
        first_answer_s=attempt.first_answer_s,
        wall_s=attempt.age_s(),
        gpu_memory=gpus.memory,
    )


def relaunch_and_measure(
    context: TrialContext, patch: Patch, loads: Iterable[Load], folder: Path, *, limits: Limits
) -> Iterator[OperatingPoint]:
    """Relaunch a patch, and measure it under some loads, one after the other; see `relaunch`."""
    with relaunch(context, patch, folder, limits=limits) as session:
        for load in loads:
            yield session.measure(load)


@contextmanager
def relaunch(
    context: TrialContext, patch: Patch, folder: Path, *, limits: Limits, candidate: bool = True
) -> Iterator[Session]:
    """Start a new server for a patch; the session is ready to measure or ask.

    Args:
        context: As for the trials.
        patch: The patch.
        folder: The folder for the server's log, if it has one.
        limits: Time limits of the launch and the first answer.
        candidate: Whether it is a candidate, not the baseline; errors of the baseline are the user's to fix.

    Raises:
        ServerError: the launch or the first request failed.
    """
    launch = _launch(context, patch, folder, limits)
    with (
        context.gpus.watch() as gpus,
        context.launcher.launch(launch) as server,
        _faults_are_its_own(candidate=candidate),
        _session(context, server, gpus, limits) as session,
    ):
        yield session


@contextmanager
def _faults_are_its_own(*, candidate: bool) -> Iterator[None]:
    """Convert errors with a candidate's server, even unusable requests, to a failure of the candidate."""
    try:
        yield
    except (UsageError, TuningError) as error:
        if not candidate:
            raise
        raise ServerError(str(error), cause=Cause.REQUESTS_FAILED) from error


class _Attempt:
    """The results of a trial so far, which a failure keeps."""

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


def _measure(  # noqa: PLR0917 (called at one place, just above)
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

        def measure(load: Load) -> OperatingPoint:
            progress.level_began(load)
            # The first level has no deadline, as a trial without a point is useless.
            return session.measure(load, Deadline(limits.until) if attempt.points else None)

        plan: Plan[Load, object] = _plan(context, _flat_from(session.effective), also)
        with suppress(LevelCutError):
            for point in points_of(plan, measure):
                attempt.points.append(point)
                progress.point_measured(point)
                if time.monotonic() >= limits.until:
                    return


def _plan(context: TrialContext, flat_from: int, also: Concurrency | None) -> Plan[Load, None]:
    if context.objective.rate is not None:
        yield RequestRate(context.objective.rate)
        return
    points = yield from sweep(
        slo=context.slo,
        max_concurrency=context.max_concurrency,
        flat_from=flat_from,
        rivals=context.rules.rivals,
        objective=context.objective,
    )
    yield from _one_more(also, points, context.slo)


def _one_more(load: Concurrency | None, points: Sequence[OperatingPoint], slo: SLO) -> Plan[Concurrency, None]:
    """A plan of one load; empty if it was measured already, or a lower load violates the SLO."""
    if load and all(point.load != load and point.holds(slo) for point in points if point.load.level <= load.level):
        yield load


def _launch(context: TrialContext, patch: Patch, folder: Path, limits: Limits) -> Launch:
    log = folder / "server.log"
    others = (path.partition("/")[0] for path in patch.files)
    also = dict.fromkeys(name for name in (*context.callees.names, *others) if name != context.model)
    caches = _stage(context, patch)
    return Launch(context.repository.path, context.model, log, limits.launch_s, tuple(also), patch, caches)


def _stage(context: TrialContext, patch: Patch) -> Path | None:
    """Write the files of a patch for its launch. Returns the folder of caches if the launch uses one."""
    config = with_caches(patch.config, str(context.caches)) if context.caches is not None else patch.config
    context.repository.apply(context.model, patch.with_config(config))
    if context.caches is None or config == patch.config:
        return None
    context.caches.mkdir(parents=True, exist_ok=True)
    return context.caches


def _session(context: TrialContext, server: Server, gpus: GpuWatch, limits: Limits) -> AbstractContextManager[Session]:
    def remedy(error: ServerError) -> None:
        context.callees.load_missing(error, server, within_s=limits.launch_s)

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
        remedy=remedy,
    )


def _flat_from(effective: model_config_pb2.ModelConfig) -> int:
    """The concurrency below which flat throughput is no sign of saturation."""
    instances = instance_count(effective)
    return _REQUESTS_AN_INSTANCE * instances if effective.HasField("dynamic_batching") else instances
