"""A session: one model of one server, with its effective config, requests, and a load engine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from tritonclient.grpc import model_config_pb2

from tuner.config.instances import instance_count
from tuner.config.interface import ModelInterface
from tuner.config.warmup import WarmUpShape
from tuner.core import deadlines
from tuner.core.errors import ServerError, ServerHungError
from tuner.core.loads import Load, Ramp, RequestRate
from tuner.load.agreement import check_agreement
from tuner.load.asking import Ask, RequestChains, asking, some_of
from tuner.load.engine import WorkerEngine
from tuner.load.first_request import ask_once
from tuner.load.inputs.shapes import own_shapes
from tuner.load.prepare import apart, prepared, request_shapes
from tuner.load.protocols import Samples, Watch
from tuner.load.workload import Plan
from tuner.measure.gpu_watch import GpuWatch
from tuner.measure.level import Deadline, LevelCutError, is_hopeless, measure_level, measure_ramp
from tuner.measure.machine_load import is_of_this_machine
from tuner.measure.meter import Meter, ReadUsage, metering
from tuner.measure.pace import Pace
from tuner.measure.points import OperatingPoint
from tuner.measure.quality_warnings import QualityCheck
from tuner.measure.rules import LevelRules
from tuner.measure.server_statistics import ReadStatistics
from tuner.options.endpoint import Endpoint
from tuner.options.groups import MADE_UP, LoadOptions
from tuner.servers.client import TritonClient
from tuner.stats.window import ends_by_itself

_MOST_PROCESSES = 8
# Longer measurements are not re-measured, in seconds.
_LONGEST_S = 60.0

See = Callable[[Load, Samples], None]
"""Called with the samples so far, at every look at a load."""


Remedy = Callable[[ServerError], None]
"""Loads what a failed request needs on the server, so that it can be sent again; or raises the error."""


def _give_up(error: ServerError) -> None:
    raise error


class RemeasurePolicy:
    """Decides on re-measuring within a session. A check that failed twice in a row is no reason any more."""

    def __init__(self) -> None:
        self._lasting: set[QualityCheck] = set()

    def pays(self, point: OperatingPoint) -> bool:
        """Whether a second measurement may have fewer warnings, at the cost of one load level.

        A rate with which the server is far from keeping up is not measured again.
        """
        inferences_per_s = point.load.level * point.batch_size
        if isinstance(point.load, RequestRate) and is_hopeless(point.throughput, inferences_per_s):
            return False
        failed = {warning.check for warning in point.warnings}
        return bool(failed - self._lasting) and point.window_s <= _LONGEST_S and not ends_by_itself(point.load)

    def better(self, first: OperatingPoint, second: OperatingPoint) -> OperatingPoint:
        """The measurement with fewer warnings, else the second one; `discarded` has the other's warnings."""
        failed = [{warning.check for warning in point.warnings} for point in (first, second)]
        self._lasting |= failed[0] & failed[1]
        kept, discarded = (first, second) if len(failed[0]) < len(failed[1]) else (second, first)
        return kept.model_copy(update={"discarded": discarded.warnings})


@dataclass(frozen=True)
class Session:
    """One model of one server.

    Attributes:
        effective: The model's config as the server completed it.
        first_answer_s: Seconds that the first request took, including connecting and warm-up.
    """

    effective: model_config_pb2.ModelConfig
    first_answer_s: float
    _plan: Plan
    _engine: WorkerEngine
    _most_processes: int
    _statistics: ReadStatistics
    _health: Callable[[], None]
    _rules: LevelRules
    _meter: Meter | None = None
    _options: LoadOptions = LoadOptions()  # noqa: RUF009 (frozen)
    _remeasure: RemeasurePolicy = field(default_factory=RemeasurePolicy)
    _pace: Pace | None = None

    def measure(self, load: Load, deadline: Deadline | None = None) -> OperatingPoint:
        """Measure one load level; re-measure it if its quality warnings may disappear (`RemeasurePolicy`).

        Args:
            load: The load to offer.
            deadline: When to end the level; None: no deadline.

        Raises:
            LevelCutError: the level had too few answers at the deadline.
            ServerError: the server died, hangs, or fails most requests.
            TuningError: the load has no request, or the load engine failed.
        """
        point = self._measure(load, deadline)
        if not self._remeasure.pays(point):
            return point
        try:
            return self._remeasure.better(point, self._measure(load, deadline))
        except LevelCutError:
            return point

    def _measure(self, load: Load, deadline: Deadline | None) -> OperatingPoint:
        """Measure a level; repeat it with more processes while the client is the limit and cores are left."""
        while True:
            rules, behind = self._rules, False
            if self._pace:
                rules = replace(rules, request_timeout_s=self._pace.patience_s(load))
                behind, self._pace.behind = self._pace.behind, False
            point = measure_level(
                self._engine,
                load,
                statistics=self._statistics,
                health=self._health,
                rules=rules,
                batch_size=self._plan.workload.batch_size,
                behind=behind,
                in_steps=self.effective.sequence_batching.iterative_sequence,
                meter=self._meter,
                deadline=deadline,
            )
            if deadline and deadline.has_passed:
                return point
            wider = min(2 * self._engine.processes, self._most_processes)
            if not point.client_bound or wider == self._engine.processes:
                if point.kept_up is False or point.warnings:
                    self._let_settle()
                return point
            self._engine.widen(wider)

    def _let_settle(self) -> None:
        """Wait until an overloaded server has worked off abandoned requests.

        It processes requests in order. So they are done when a further request is answered. If that takes too long, the
        server counts as behind.
        """
        within_s = self._pace.drained_within_s() if self._pace else None
        try:
            self._engine.ask(self._plan.workload.requests[0], timeout_s=within_s)
        except ServerHungError:
            if self._pace:
                self._pace.behind = True
        except ServerError:
            pass  # The next load reports it.

    def measure_ramp(self, ramp: Ramp) -> tuple[OperatingPoint, ...]:
        """Measure a ramp, slice by slice.

        Raises:
            TritontuneError: as `measure` does.
        """
        batch_size = self._plan.workload.batch_size
        points = measure_ramp(
            self._engine, ramp, health=self._health, rules=self._rules, batch_size=batch_size, meter=self._meter
        )
        if any(point.kept_up is False for point in points):
            self._let_settle()
        return points

    @property
    def batch_size(self) -> int:
        """Inferences in each request."""
        return self._plan.workload.batch_size

    def request_shapes(self) -> tuple[WarmUpShape, ...]:
        """The distinct shapes of the requests of the load."""
        return request_shapes(self.effective, self._options)

    def questions(self) -> RequestChains:
        """A few of the requests of the load, always the same ones; see `some_of`.

        Their tensors go over the network even if the load uses shared memory, so that answers hold outputs.
        """
        plan, options = self._plan, self._options
        made_up = options.input_data in MADE_UP
        if options.shared_memory == "none":
            return some_of(plan.workload, made_up=made_up)
        with prepared(
            self.effective,
            options.model_copy(update={"shared_memory": "none"}),
            plan.endpoint,
            version=plan.workload.version,
            request_timeout_s=plan.request_timeout_s,
        ) as over_network:
            return some_of(over_network.workload, made_up=made_up)

    @contextmanager
    def asking(self) -> Iterator[Ask]:
        """Ask the server outside of any load; see `tuner.load.asking`.

        Raises:
            ServerError: the server is gone; or an error raised within the context.
        """
        try:
            with asking(apart(self._plan)) as ask:
                yield ask
        except ServerError:
            self._health()
            raise


class _SeenEngine(WorkerEngine):
    """A worker engine that passes its samples on to `see`, with deadlines by the server's pace."""

    def __init__(self, plan: Plan, see: See, pace: Pace, *, seed: int, processes: int) -> None:
        super().__init__(plan, seed=seed, processes=processes, patience=pace.patience_s)
        self._see = see
        self._pace = pace

    def offer(self, load: Load, watch: Watch, *, first_look_s: float) -> Samples:
        """See `LoadEngine.offer`."""

        def shown(samples: Samples) -> float | None:
            self._see(load, samples)
            return watch(samples)

        samples = super().offer(load, shown, first_look_s=first_look_s)
        self._pace.saw(load, samples)
        return samples


@contextmanager
def open_session(
    endpoint: Endpoint,
    model: str,
    options: LoadOptions,
    *,
    version: str = "",
    rules: LevelRules,
    health: Callable[[], None],
    first_answer_within_s: float = deadlines.FIRST_ANSWER_S,
    see: See = lambda _load, _samples: None,
    usage: ReadUsage | None = None,
    gpus: GpuWatch | None = None,
    shapes_elsewhere: bool = False,
    remedy: Remedy = _give_up,
    cores: Collection[int] = (),
) -> Iterator[Session]:
    """Make requests for a ready model, and check that it answers one correctly.

    Args:
        endpoint: The server's endpoint.
        model: The model's name.
        options: The contents of requests, and how they are sent.
        version: The model's version; empty: the server's choice.
        rules: The rules of load levels; the request deadline follows from the first answer.
        health: Raises `ServerDiedError` if the server is gone.
        first_answer_within_s: The deadline of the first request, in seconds.
        see: Called with the samples as they come.
        usage: Reads the server's CPU and memory usage; None: not available.
        gpus: A GPU watch that was entered before the launch; None: GPUs are not watched.
        shapes_elsewhere: Whether `--shape` for inputs that the model does not have is for other models.
        remedy: Called when the first request fails; loads the missing model, so that the request is sent again, or
            raises the error.
        cores: The cores of the server and the load generator, for the load from elsewhere; empty: all.

    Raises:
        UsageError: requests cannot be made for the model, or an option does not fit it.
        TuningError: the answers to our load generator and to gRPC's own library differ.
        ServerError: the first request failed.
    """
    with TritonClient(endpoint) as client:
        effective = client.model_config(model, version)
        if gpus:
            gpus.use(effective)
        own = own_shapes(ModelInterface.of(effective), options.shape, elsewhere=shapes_elsewhere)
        options = options.model_copy(update={"shape": own})
        with prepared(effective, options, endpoint, version=version, request_timeout_s=first_answer_within_s) as first:
            first_answer_s, answer = _first_answer(first, remedy)
            alone_s = deadlines.answer_s(first_answer_s)
            rules = replace(rules, request_timeout_s=alone_s)
            plan = replace(first, request_timeout_s=alone_s)
            pace = Pace(alone_s, first_answer_s, instances=instance_count(effective))
            with (
                metering(gpus, usage, server_elsewhere=not is_of_this_machine(endpoint.host), cores=cores) as meter,
                _SeenEngine(plan, see, pace, seed=options.seed, processes=options.processes or 1) as engine,
            ):
                _second_answer(plan, engine, answer, pace)
                yield Session(
                    effective,
                    first_answer_s,
                    plan,
                    engine,
                    options.processes or _spare_processes(),
                    lambda: client.statistics(model, version),
                    health,
                    rules,
                    meter,
                    options,
                    _pace=pace,
                )


def _first_answer(plan: Plan, remedy: Remedy) -> tuple[float, bytes | None]:
    """The seconds of the first answer, and the answer if gRPC's own library received it, not the load's driver."""
    while True:
        try:
            return _ask_first(plan)
        except ServerError as error:
            remedy(error)


def _ask_first(plan: Plan) -> tuple[float, bytes | None]:
    request = plan.workload.requests[0]
    if plan.driver == "wire":
        answer, seconds = ask_once(plan.endpoint, request.body, timeout_s=plan.request_timeout_s)
        return seconds, answer
    # Other sequence ids, since an iterative model may still work on this request when the load begins.
    with WorkerEngine(apart(plan)) as engine:
        began = time.monotonic()
        engine.ask(request)
        return time.monotonic() - began, None


def _second_answer(plan: Plan, engine: WorkerEngine, first: bytes | None, pace: Pace) -> None:
    """Ask again through the load's driver, and record the time of this answer of a warm model.

    Raises:
        TuningError: the answer differs from the first one, which gRPC's own library received.
        ServerError: there is no answer, although gRPC's own library had received one.
    """
    request = plan.workload.requests[0]
    began = time.monotonic()
    with suppress(*[ServerError] if first is None else []):
        answer = engine.ask(request)
        pace.took(time.monotonic() - began)
    if first is None:
        return

    def ask_again() -> bytes:
        return ask_once(plan.endpoint, request.body, timeout_s=plan.request_timeout_s)[0]

    check_agreement(answer, first, ask_again)


def _spare_processes() -> int:
    """Number of processes that may offer load: half of the cores, at most 8; the rest is the server's."""
    return max(1, min(_MOST_PROCESSES, len(os.sched_getaffinity(0)) // 2))
