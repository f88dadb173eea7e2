"""One model of one server, ready to be measured: its effective config, requests for it, an engine to send them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from tritonclient.grpc import model_config_pb2

from tuner import deadlines
from tuner.errors import TuningError
from tuner.load.grpc_aio import GrpcAioEngine, ask_once
from tuner.load.inputs import make_inputs
from tuner.load.protocols import Concurrency, LoadEngine
from tuner.load.requests import build_requests
from tuner.measure.level import LevelRules, measure_level
from tuner.measure.points import OperatingPoint
from tuner.measure.server_statistics import ReadStatistics
from tuner.models.interface import ModelInterface
from tuner.models.tunable import why_not_tunable
from tuner.servers.client import TritonClient

# Different requests, so that a response cache does not look miraculous.
_REQUEST_POOL = 16


@dataclass(frozen=True)
class Session:
    """One model of one server.

    Attributes:
        effective: The model's config as the server completed it.
        first_answer_s: How long the first request took, connecting and warming up included.
    """

    effective: model_config_pb2.ModelConfig
    first_answer_s: float
    _engine: LoadEngine
    _statistics: ReadStatistics
    _health: Callable[[], None]
    _rules: LevelRules

    def measure(self, concurrency: int) -> OperatingPoint:
        """Measure one load level.

        Raises:
            ServerError: the server died, hangs, or fails most of the requests.
        """
        return measure_level(
            self._engine, Concurrency(concurrency), statistics=self._statistics, health=self._health, rules=self._rules
        )


@contextmanager
def open_session(
    address: str,
    model: str,
    *,
    shapes: Mapping[str, tuple[int, ...]],
    seed: int,
    rules: LevelRules,
    health: Callable[[], None],
    first_answer_within_s: float,
) -> Iterator[Session]:
    """Make requests for a model that is ready, and see that it answers one.

    Args:
        address: `host:port` of the gRPC endpoint.
        model: Its name.
        shapes: Dimensions for inputs of variable shape.
        seed: Of the random inputs.
        rules: When a level has been measured well enough; the request deadline follows from the first answer.
        health: Raises `ServerDiedError` when the server is gone.
        first_answer_within_s: The deadline of the first request.

    Raises:
        InputError: requests cannot be made for the model.
        TuningError: the model needs another kind of load.
        ServerError: the first request failed.
    """
    with TritonClient(address) as client:
        effective = client.model_config(model)
        if reason := why_not_tunable(effective):
            raise TuningError(f"model {model!r}: {reason}")
        inputs = make_inputs(ModelInterface.of(effective), shapes=shapes, pool=_REQUEST_POOL, seed=seed)
        requests = build_requests(model, inputs)
        first_answer_s = ask_once(address, requests[0], timeout_s=first_answer_within_s)
        rules = replace(rules, request_timeout_s=deadlines.answer_s(first_answer_s))
        with GrpcAioEngine(address, requests, request_timeout_s=rules.request_timeout_s) as engine:
            yield Session(effective, first_answer_s, engine, lambda: client.statistics(model), health, rules)
