"""One model of one server, ready to be measured: its effective config, requests for it, an engine to send them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from tritonclient.grpc import model_config_pb2

from tuner.config.instances import instance_count
from tuner.config.interface import ModelInterface
from tuner.core import deadlines
from tuner.core.errors import ServerError, ServerHungError
from tuner.core.loads import Load, Ramp
from tuner.load.agreement import check_agreement
from tuner.load.asking import Ask, Lines, asking, some_of
from tuner.load.engine import WorkerEngine
from tuner.load.first_request import ask_once
from tuner.load.inputs.shapes import own_shapes
from tuner.load.prepare import apart, prepared
from tuner.load.protocols import Samples, Watch
from tuner.load.workload import Plan
from tuner.measure.again import Again
from tuner.measure.gpu_watch import GpuWatch
from tuner.measure.level import Deadline, LevelCutError, measure_level, measure_ramp
from tuner.measure.machine_load import is_of_this_machine
from tuner.measure.meter import Meter, ReadUsage, metering
from tuner.measure.pace import Pace
from tuner.measure.points import OperatingPoint
from tuner.measure.rules import LevelRules
from tuner.measure.server_statistics import ReadStatistics
from tuner.options.endpoint import Endpoint
from tuner.options.groups import MADE_UP, LoadOptions
from tuner.servers.client import TritonClient

_MOST_PROCESSES = 8

See = Callable[[Load, Samples], None]
"""Is shown what has been sampled so far, at every look at a load."""


Supply = Callable[[ServerError], None]
"""Does what a failed request asks for, so that it may be sent again; or raises the error."""


def _give_up(error: ServerError) -> None:
    raise error


@dataclass(frozen=True)
class Session:
    """One model of one server.

    Attributes:
        effective: The model's config as the server completed it.
        first_answer_s: How long the first request took, connecting and warming up included.
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
    _again: Again = field(default_factory=Again)
    _pace: Pace | None = None

    def measure(self, load: Load, deadline: Deadline | None = None) -> OperatingPoint:
        """Measure one load level, and once more when there are doubts about it that may go; see `Again`.

        Args:
            load: What to offer.
            deadline: When it is ended, with what was measured by then.

        Raises:
            LevelCutError: that was too little.
            ServerError: the server died, hangs, or fails most of the requests.
            TuningError: the load has no request, or the engine broke.
        """
        point = self._measure(load, deadline)
        if not self._again.pays(point):
            return point
        try:
            return self._again.better(point, self._measure(load, deadline))
        except LevelCutError:
            return point

    def _measure(self, load: Load, deadline: Deadline | None) -> OperatingPoint:
        """Measure a level; again with more processes, where the client was the limit and there are cores."""
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
                if point.kept_up is False or point.doubts:
                    self._let_settle()
                return point
            self._engine.widen(wider)

    def _let_settle(self) -> None:
        """Wait until an overloaded server is done with the requests that it still has, though nobody waits for them.

        It takes them in order, so when one more is answered they are gone; if it is not in time, it is behind.
        """
        within_s = self._pace.drained_within_s() if self._pace else None
        try:
            self._engine.ask(self._plan.workload.requests[0], timeout_s=within_s)
        except ServerHungError:
            if self._pace:
                self._pace.behind = True
        except ServerError:
            pass  # The next load will tell.

    def measure_ramp(self, ramp: Ramp) -> tuple[OperatingPoint, ...]:
        """Measure a rising rate, slice by slice.

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

    def questions(self) -> Lines:
        """A few of the requests that are offered, always the same; see `some_of`.

        Their tensors go over the network, also where those of the load lie in shared memory: only so do answers hold
        outputs.
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
        """A way to ask the server beside any load; see `tuner.load.asking`.

        Raises:
            ServerError: what is raised inside, or why the server is gone, which explains it.
        """
        try:
            with asking(apart(self._plan)) as ask:
                yield ask
        except ServerError:
            self._health()
            raise


class _SeenEngine(WorkerEngine):
    """Shows somebody its samples, too, and waits as long as the server's pace asks for."""

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
    supply: Supply = _give_up,
) -> Iterator[Session]:
    """Make requests for a model that is ready, and see that it answers one, and well.

    Args:
        endpoint: Of the server.
        model: Its name.
        options: What requests are made of, and how they are sent.
        version: Of the model; empty: the server's choice.
        rules: When a level has been measured well enough; the request deadline follows from the first answer.
        health: Raises `ServerDiedError` when the server is gone.
        first_answer_within_s: The deadline of the first request.
        see: Is shown the samples as they come.
        usage: Asks what the server takes of processors and memory; None: nobody can tell.
        gpus: Watches the GPUs that it sees since before the launch; None: nobody does.
        shapes_elsewhere: Whether shapes of inputs that the model has not are for other models.
        supply: Gives the server what the first request fails for, so that it is sent again; or raises.

    Raises:
        UsageError: requests cannot be made for the model, or an option does not go with it.
        TuningError: our load generator does not get the answer that gRPC's own library gets.
        ServerError: the first request failed.
    """
    with TritonClient(endpoint) as client:
        effective = client.model_config(model, version)
        if gpus:
            gpus.use(effective)
        own = own_shapes(ModelInterface.of(effective), options.shape, elsewhere=shapes_elsewhere)
        options = options.model_copy(update={"shape": own})
        with prepared(effective, options, endpoint, version=version, request_timeout_s=first_answer_within_s) as first:
            first_answer_s, answer = _first_answer(first, supply)
            alone_s = deadlines.answer_s(first_answer_s)
            rules = replace(rules, request_timeout_s=alone_s)
            plan = replace(first, request_timeout_s=alone_s)
            pace = Pace(alone_s, first_answer_s, instances=instance_count(effective))
            with (
                metering(gpus, usage, server_elsewhere=not is_of_this_machine(endpoint.host)) as meter,
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


def _first_answer(plan: Plan, supply: Supply) -> tuple[float, bytes | None]:
    """How long the first answer takes; and what it is, where it came by another way than that of the load."""
    while True:
        try:
            return _ask_first(plan)
        except ServerError as error:
            supply(error)


def _ask_first(plan: Plan) -> tuple[float, bytes | None]:
    request = plan.workload.requests[0]
    if plan.driver == "wire":
        answer, seconds = ask_once(plan.endpoint, request.body, timeout_s=plan.request_timeout_s)
        return seconds, answer
    # An iterative model may go on with its answer when the load begins.
    with WorkerEngine(apart(plan)) as engine:
        began = time.monotonic()
        engine.ask(request)
        return time.monotonic() - began, None


def _second_answer(plan: Plan, engine: WorkerEngine, first: bytes | None, pace: Pace) -> None:
    """Ask once more, over the way of the load: how long that takes says more of the model than the first answer does.

    Raises:
        TuningError: it is another answer than the first one, where that came by another way.
        ServerError: there is none, where the first one came by another way.
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
    """How many processes may offer load; half of the cores are the server's."""
    return max(1, min(_MOST_PROCESSES, len(os.sched_getaffinity(0)) // 2))
