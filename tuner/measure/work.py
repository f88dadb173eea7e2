"""A piece of work: one launch with its measurements, as data in and data out.

`carry_out` does it on this machine. An executor (`tuner.cluster`) may send it to another process or host first. So a
`Work` and its `Outcome` can be pickled, and its limits are durations, as the clocks of hosts differ.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from tritonclient.grpc import model_config_pb2
from typing_extensions import Self

from tuner.config.config import ModelConfig
from tuner.config.instances import instance_count
from tuner.config.patch import Patch, write_patch
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
from tuner.measure.plan import Plan, result_of
from tuner.measure.points import OperatingPoint
from tuner.measure.rules import LevelRules
from tuner.measure.session import Session, open_session
from tuner.measure.sweep import sweep
from tuner.options.groups import LoadOptions
from tuner.servers.callees import Callees
from tuner.servers.protocols import Launch, Launcher, Server
from tuner.space.caches import with_caches

_TEMPORARY = (
    "# The repository and the tritontune-... folders named below were temporary. To start this server again, use a "
    "copy of your repository with this trial's config.pbtxt. `tritontune export --to DIR` makes one with the best "
    "config."
)
FAILURE = "failure.txt"
"""The file in the folder of a launch with the whole reason of its failure; a terminal shows parts of it."""
# A dynamic batcher prepares up to two batches per instance; below about twice that, flat throughput is no sign of
# saturation.
_REQUESTS_AN_INSTANCE = 4


class Failure(Record):
    """The reason why a launch has no points, or only the first ones.

    Attributes:
        cause: The kind of failure.
        message: The reason, in one line.
        last_words: The last lines that Triton wrote.
    """

    cause: Cause
    message: str
    last_words: str = ""

    @classmethod
    def of(cls, error: ServerError) -> Self:
        """The failure that an error tells of."""
        return cls(cause=error.cause, message=str(error), last_words=error.last_words)

    def as_error(self) -> ServerError:
        """The error that it was made of."""
        return ServerError(self.message, cause=self.cause, last_words=self.last_words)


@dataclass(frozen=True)
class TrialTerms:
    """What all launches of a model have in common, whatever host carries them out.

    Attributes:
        model: The model's name.
        options: The contents of requests, and how they are sent.
        rules: The rules by which the measurement of a load level ends.
        max_concurrency: The highest concurrency of the sweep.
        max_gpu_memory: Bytes of each GPU that a server may use; None: no limit.
        shapes_elsewhere: Whether `--shape` for inputs that the model lacks is for other models.
        objective: The objective; its rate, if it has one, replaces the sweep.
    """

    model: str
    options: LoadOptions
    rules: LevelRules
    max_concurrency: int
    max_gpu_memory: int | None = None
    shapes_elsewhere: bool = False
    objective: Objective = THROUGHPUT

    @property
    def slo(self) -> SLO:
        """The limits that a candidate must hold."""
        return self.rules.slo


@dataclass(frozen=True)
class TrialContext:
    """The place where launches of a model are carried out, and their terms.

    Attributes:
        terms: The terms of the launches.
        launcher: Launches the servers.
        repository: The staged repository with the model.
        gpus: The GPUs that the launcher's servers see.
        callees: The models that are loaded beside it.
        caches: The folder of engines that launches share; None: servers run elsewhere.
        cores: The cores of servers and their load generator; empty: they are not pinned.
    """

    terms: TrialTerms
    launcher: Launcher
    repository: StagedRepository
    gpus: Gpus = NO_GPUS
    callees: Callees = field(default_factory=lambda: Callees(""))
    caches: Path | None = None
    cores: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Limits:
    """Time limits of a piece of work, in seconds.

    Attributes:
        launch_s: Until the model must be ready.
        first_answer_s: That its first answer may take.
        total_s: From the start of the work to the end of load levels after the first one. A level that it ends counts
            if it has enough answers.
    """

    launch_s: float
    first_answer_s: float
    total_s: float


class LoadPlan(Protocol):
    """The loads of a piece of work. It can be pickled."""

    @property
    def is_cut(self) -> bool:
        """Whether `Limits.total_s` ends it, even within a level."""

    def plan(self, terms: TrialTerms, effective: model_config_pb2.ModelConfig, until: float) -> Plan[Any, Any]:
        """The loads, chosen from the points so far.

        Args:
            terms: The terms of the launch.
            effective: The config that the server completed.
            until: The deadline by `Limits.total_s` (`time.monotonic` of the host that carries it out).
        """


@dataclass(frozen=True)
class Sweep:
    """Rising load, as in each trial of a search; at a fixed rate, this rate alone.

    Attributes:
        also: A load to measure in addition, for comparison, unless a lower one violates the SLO.
    """

    also: Concurrency | None = None
    is_cut: bool = True

    def plan(self, terms: TrialTerms, effective: model_config_pb2.ModelConfig, until: float) -> Plan[Any, Any]:
        """See `LoadPlan`."""
        del until
        if terms.objective.rate is not None:
            yield RequestRate(terms.objective.rate)
            return
        points = yield from sweep(
            slo=terms.slo,
            max_concurrency=terms.max_concurrency,
            flat_from=_flat_from(effective),
            rivals=terms.rules.rivals,
            objective=terms.objective,
        )
        yield from _one_more(self.also, points, terms.slo)


@dataclass(frozen=True)
class Loads:
    """Some loads, one after the other; each is measured to its end.

    Attributes:
        loads: The loads.
    """

    loads: tuple[Load, ...]
    is_cut: bool = False

    def plan(self, terms: TrialTerms, effective: model_config_pb2.ModelConfig, until: float) -> Plan[Any, Any]:
        """See `LoadPlan`."""
        del terms, effective, until
        for load in self.loads:  # noqa: UP028 (a tuple receives no points)
            yield load


class Examine(Protocol):
    """Checks a server before its first load level. It can be pickled."""

    def __call__(self, session: Session) -> Any:
        """Check the server.

        Returns:
            What it found, for `Outcome.examined`.

        Raises:
            ServerError: the check failed, and with it the work.
        """


@dataclass(frozen=True)
class Work:
    """One launch with its measurements.

    Attributes:
        terms: The terms that all launches of the model share.
        patch: What is launched.
        plan: The loads.
        limits: Time limits.
        examine: Checks the server before the first level; None: no check.
        is_baseline: Whether it is the user's own configuration. Errors with its requests are the user's to fix, those
            of a candidate are failures of the candidate.
    """

    terms: TrialTerms
    patch: Patch
    plan: LoadPlan
    limits: Limits
    examine: Examine | None = None
    is_baseline: bool = False


@dataclass(frozen=True)
class Outcome:
    """The outcome of a piece of work.

    Attributes:
        points: The operating points, in the order in which they were measured.
        failure: Why points are missing; None: none is.
        effective_config: The config as the server completed it; None if it never became ready.
        launch_s: Seconds until the model was ready; None if it never was.
        first_answer_s: Seconds that the first answer took; None if there was none.
        wall_s: Seconds from launch to stop.
        gpu_memory: GPU memory that it took; None if it uses no GPU, or unknown.
        examined: What `Work.examine` returned.
        result: What the plan of the loads returned.
        host: The host that carried it out; empty: the machine of the run.
    """

    points: tuple[OperatingPoint, ...] = ()
    failure: Failure | None = None
    effective_config: str | None = None
    launch_s: float | None = None
    first_answer_s: float | None = None
    wall_s: float = 0.0
    gpu_memory: GpuMemory | None = None
    examined: Any = None
    result: Any = None
    host: str = ""


class TrialProgress(Protocol):
    """Called with the progress of a piece of work."""

    def level_began(self, load: Load) -> None:
        """A load level is about to be measured."""

    def point_measured(self, point: OperatingPoint) -> None:
        """A load level was measured."""


class _Unheard:
    """Receives the progress of work that nobody follows."""

    def level_began(self, load: Load) -> None:
        """See `TrialProgress`."""

    def point_measured(self, point: OperatingPoint) -> None:
        """See `TrialProgress`."""


UNHEARD: TrialProgress = _Unheard()
"""For work that nobody follows."""


def carry_out(work: Work, context: TrialContext, folder: Path, progress: TrialProgress) -> Outcome:
    """Launch a patch, examine the server, measure it under the loads, stop it.

    Args:
        work: What to do.
        context: Where to do it; its terms are the work's.
        folder: The folder for the patch, the launch command, and the log of the server; created here.
        progress: Called with each load level.

    Raises:
        InputError: requests cannot be made for the baseline.
        TuningError: the baseline cannot be tuned, or the launcher does not work.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_patch(folder, work.terms.model, work.patch)
    attempt = _Attempt()
    failure = None
    gpus = context.gpus.watch()
    try:
        launch = _launch(context, work.patch, folder, work.limits.launch_s)
        with gpus, context.launcher.launch(launch) as server:
            attempt.launched()
            write_atomically(folder / "command.txt", f"{_TEMPORARY}\n{server.command}\n")
            with _faults_are_its_own(candidate=not work.is_baseline):
                _measure(work, context, server, gpus, attempt, progress)
    except ServerError as error:
        failure = Failure.of(error)
        write_atomically(folder / FAILURE, f"{failure.cause.value}: {failure.message}\n\n{failure.last_words}")
    return Outcome(
        points=tuple(attempt.points),
        failure=failure,
        effective_config=attempt.effective_config,
        launch_s=attempt.launch_s,
        first_answer_s=attempt.first_answer_s,
        wall_s=attempt.age_s(),
        gpu_memory=gpus.memory,
        examined=attempt.examined,
        result=attempt.result,
    )


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
    """The outcome so far, which a failure keeps."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.launch_s: float | None = None
        self.first_answer_s: float | None = None
        self.effective_config: str | None = None
        self.points: list[OperatingPoint] = []
        self.examined: Any = None
        self.result: Any = None

    def age_s(self) -> float:
        return time.monotonic() - self.began

    def launched(self) -> None:
        self.launch_s = self.age_s()


class _OutOfTimeError(Exception):
    """The time of a plan that may be cut has ended."""


def _measure(  # noqa: PLR0917 (called at one place, just above)
    work: Work, context: TrialContext, server: Server, gpus: GpuWatch, attempt: _Attempt, progress: TrialProgress
) -> None:
    until = attempt.began + work.limits.total_s
    with _session(work, context, server, gpus) as session:
        if reason := why_not_tunable(session.effective):
            raise TuningError(f"model {work.terms.model!r}: {reason}")
        attempt.effective_config = ModelConfig.from_proto(session.effective).text
        attempt.first_answer_s = session.first_answer_s
        if work.examine is not None:
            attempt.examined = work.examine(session)

        def measure(load: Load) -> OperatingPoint:
            is_cut = work.plan.is_cut and bool(attempt.points)
            if is_cut and time.monotonic() >= until:
                raise _OutOfTimeError
            progress.level_began(load)
            # The first level has no deadline, as a launch without a point is useless.
            point = session.measure(load, Deadline(until) if is_cut else None)
            attempt.points.append(point)
            progress.point_measured(point)
            return point

        with suppress(LevelCutError, _OutOfTimeError):
            attempt.result = result_of(work.plan.plan(work.terms, session.effective, until), measure)


def _one_more(load: Concurrency | None, points: Sequence[OperatingPoint], slo: SLO) -> Plan[Concurrency, None]:
    """A plan of one load; empty if it was measured already, or a lower load violates the SLO."""
    if load and all(point.load != load and point.holds(slo) for point in points if point.load.level <= load.level):
        yield load


def _launch(context: TrialContext, patch: Patch, folder: Path, launch_s: float) -> Launch:
    model, log = context.terms.model, folder / "server.log"
    others = (path.partition("/")[0] for path in patch.files)
    also = dict.fromkeys(name for name in (*context.callees.names, *others) if name != model)
    caches = _stage(context, patch)
    return Launch(context.repository.path, model, log, launch_s, tuple(also), patch, caches)


def _stage(context: TrialContext, patch: Patch) -> Path | None:
    """Write the files of a patch for its launch. Returns the folder of caches if the launch uses one."""
    config = with_caches(patch.config, str(context.caches)) if context.caches is not None else patch.config
    context.repository.apply(context.terms.model, patch.with_config(config))
    if context.caches is None or config == patch.config:
        return None
    context.caches.mkdir(parents=True, exist_ok=True)
    return context.caches


def _session(work: Work, context: TrialContext, server: Server, gpus: GpuWatch) -> AbstractContextManager[Session]:
    terms, limits = work.terms, work.limits

    def remedy(error: ServerError) -> None:
        context.callees.load_missing(error, server, within_s=limits.launch_s)

    return open_session(
        replace(server.endpoint, headers=terms.options.header),
        terms.model,
        terms.options,
        rules=terms.rules,
        health=server.check,
        first_answer_within_s=limits.first_answer_s,
        usage=server.usage,
        gpus=gpus,
        shapes_elsewhere=terms.shapes_elsewhere,
        remedy=remedy,
        cores=context.cores,
    )


def _flat_from(effective: model_config_pb2.ModelConfig) -> int:
    """The concurrency below which flat throughput is no sign of saturation."""
    instances = instance_count(effective)
    return _REQUESTS_AN_INSTANCE * instances if effective.HasField("dynamic_batching") else instances
