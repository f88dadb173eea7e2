"""One loaded version of a model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from tuner.testing.fake.batcher import Batcher, Instance, Rules
from tuner.testing.fake.configs import as_json, datatype, instance_names, refuse, string_parameters, validate_instances
from tuner.testing.fake.ensembles import Ensemble
from tuner.testing.fake.messages import BYTES, ITEM_BYTES, Code, InferRequest, InferResponse, RefusedError, count_of
from tuner.testing.fake.native import NativeModel, Parameters, Shape
from tuner.testing.fake.python_backend import PythonInstance
from tuner.testing.fake.runtime import Runtime
from tuner.testing.fake.sequences import SequenceBatcher, blank_inputs
from tuner.testing.fake.statistics import Statistics

NATIVE = "fake"
_NOTE = (
    " NOTE: Setting a non-zero max_batch_size in the model config requires a batch dimension to be prepended to each "
    "input shape. If you want to specify the full shape including the batch dim in your input dims config, try setting "
    "max_batch_size to zero. See the model configuration docs for more info on max_batch_size."
)

Infer = Callable[[InferRequest], None]


class Served:
    """A version of a model.

    Args:
        name: Name of the model.
        version: Its version.
        config: Its completed config.
        folder: The folder of the version.
        runtime: The server's clock and control file.
        infer: Runs an inference of another model of the server, for an ensemble.
    """

    def __init__(
        self, name: str, version: int, config: pb.ModelConfig, *, folder: Path, runtime: Runtime, infer: Infer
    ) -> None:
        self.name = name
        self.version = version
        self.config = config
        self.statistics = Statistics()
        self.decoupled = config.model_transaction_policy.decoupled
        self._folder = folder
        self._runtime = runtime
        self._infer = infer
        self._batches = config.max_batch_size > 0
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._python: list[PythonInstance] = []
        self._batcher: Batcher | None = None
        self._sequences: SequenceBatcher | None = None
        self._ensemble: Ensemble | None = None
        own = {entry.name for entry in config.sequence_batching.control_input}
        self._inputs = {entry.name: (datatype(entry.data_type), self._shape(entry.dims)) for entry in config.input}
        self._optional = {entry.name for entry in config.input if entry.optional} | own
        self._ragged = {entry.name for entry in config.input if entry.allow_ragged_batch}
        self._outputs = {entry.name for entry in config.output}
        self._caches = runtime.caches and config.response_cache.enable
        self._cache: dict[object, InferResponse] = {}

    def _shape(self, dims: Sequence[int]) -> tuple[int, ...]:
        return (-1, *dims) if self._batches else tuple(dims)

    async def load(self) -> None:
        """Start its instances.

        Raises:
            RefusedError: the model fails to load.
        """
        if self.config.platform == "ensemble":
            self._ensemble = Ensemble(self.config, self._infer)
            return
        validate_instances(self.config, self.name)
        backends = self._runtime.backends
        there = backends is None or self.config.backend in backends
        if there and self.config.backend == NATIVE:
            instances = await self._native()
        elif there and self.config.backend == "python":
            instances = await self._with_python()
        else:
            raise refuse(
                f"unable to find backend library for backend '{self.config.backend}', "
                "try specifying runtime on the model configuration."
            )
        timeline = self._runtime.timeline
        if self.config.HasField("sequence_batching"):
            self._sequences = SequenceBatcher(
                self.config.sequence_batching,
                largest=self.config.max_batch_size,
                instances=instances,
                timeline=timeline,
                model=self.name,
                blank=self._blank,
            )
        else:
            self._batcher = Batcher(rules_of(self.config), instances, timeline)

    async def _native(self) -> Sequence[Instance]:
        parameters = Parameters(string_parameters(self.config))
        model = NativeModel(
            parameters,
            inputs=list(self._inputs),
            outputs=[
                Shape(output.name, datatype(output.data_type), tuple(output.dims)) for output in self.config.output
            ],
            batches=self._batches,
            count=sum(group.count for group in self.config.instance_group),
            timeline=self._runtime.timeline,
            speed=self._runtime.speed,
        )
        await asyncio.sleep(parameters.number("load_us") / 1e6)
        model.refuse()
        if parameters.text("hang_at_load") == "true":
            await asyncio.Event().wait()
        return model.instances(self._finished)

    async def _with_python(self) -> Sequence[Instance]:
        config = as_json(self.config)
        self._python = [
            PythonInstance(
                name,
                model=self.name,
                version=self.version,
                model_file=self._folder / self.config.default_model_filename,
                config=config,
                decoupled=self.decoupled,
                clock=self._runtime.now,
                finished=self._finished,
                answered=self._answered,
                infer=self._infer,
            )
            for name in instance_names(self.config)
        ]
        results = await asyncio.gather(*(instance.start() for instance in self._python), return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        if errors:
            await asyncio.gather(*(instance.stop() for instance in self._python))
            raise errors[0]
        return self._python

    async def unload(self) -> None:
        """Wait for requests in flight, and stop the instances."""
        await self._idle.wait()
        await asyncio.gather(*(instance.stop() for instance in self._python))

    def infer(self, request: InferRequest) -> None:
        """Queue a request; its `answer` takes the responses later.

        Raises:
            RefusedError: the request is invalid.
        """
        self._check(request)
        now = request.arrived = self._runtime.now()
        key = tuple(sorted(request.inputs.items())) if self._caches else None
        if key is not None and (response := self._cache.get(key)):
            self.statistics.found()
            request.answer(response)
            return
        self._under_way += 1
        self._idle.clear()
        answer, request.answer = request.answer, self._counting(request.answer, key)
        try:
            if self._ensemble:
                self._ensemble.infer(request, self._composed)
            elif self._sequences:
                self._sequences.arrive(request, now)
            elif self._batcher and not self._batcher.arrive(request, now):
                raise refuse(
                    f"[request id: {request.id or '<id_unknown>'}] Exceeds maximum queue size", Code.UNAVAILABLE
                )
        except RefusedError:
            request.answer = answer
            self.statistics.failed(now, now)
            self._ended()
            raise

    def _counting(self, answer: Callable[[InferResponse], None], key: object) -> Callable[[InferResponse], None]:
        def take(response: InferResponse) -> None:
            if response.final:
                self._ended()
            if key is not None and not response.error:
                self._cache[key] = response
                self.statistics.missed()
            answer(response)

        return take

    def _ended(self) -> None:
        self._under_way -= 1
        if self._under_way == 0:
            self._idle.set()

    def _finished(
        self, batch: Sequence[InferRequest], responses: Sequence[InferResponse] | None, began: float, ended: float
    ) -> None:
        self.statistics.executed(batch, began, ended)
        if responses is None:
            return
        for request, response in zip(batch, responses, strict=False):
            if request.ready:
                self._answered(request, response)

    def _answered(self, request: InferRequest, response: InferResponse) -> None:
        if request.wanted and response.outputs:
            outputs = {name: tensor for name, tensor in response.outputs.items() if name in request.wanted}
            response = InferResponse(outputs, final=response.final)
        request.answer(response)

    def _composed(self, request: InferRequest, response: InferResponse) -> None:
        """The response of an ensemble."""
        now = self._runtime.time()
        if response.error:
            self.statistics.failed(request.arrived, now)
        else:
            self.statistics.executed([request], request.arrived, now)
        self._answered(request, response)

    def _blank(self) -> InferRequest:
        shapes = {name: (kind, shape) for name, (kind, shape) in self._inputs.items()}
        return InferRequest(self.name, blank_inputs(shapes), lambda _: None, ready=False)

    def _check(self, request: InferRequest) -> None:
        """Check a request, and set its size.

        Raises:
            RefusedError: the request is invalid.
        """
        for name in request.inputs:
            if name not in self._inputs:
                raise refuse(f"unexpected inference input '{name}' for model '{self.name}'")
        for name in request.wanted:
            if name not in self._outputs:
                raise refuse(f"unexpected inference output '{name}' for model '{self.name}'")
        prefix = f"[request id: {request.id or '<id_unknown>'}] "
        missing = [name for name in self._inputs if name not in request.inputs and name not in self._optional]
        if missing:
            raise refuse(
                f"{prefix}expected {len(self._inputs)} inputs but got {len(request.inputs)} inputs for model "
                f"'{self.name}'. Got input(s) {_listed(request.inputs)}, but missing required input(s) "
                f"{_listed(missing)}. Please provide all required input(s)."
            )
        for name in request.inputs:
            self._check_input(request, name, prefix)
        first = next(iter(request.inputs.values()), None)
        request.size = first.shape[0] if self._batches and first and first.shape else 1
        if self._batches and request.size > self.config.max_batch_size:
            text = f"inference request batch-size must be <= {self.config.max_batch_size} for '{self.name}'"
            raise refuse(prefix + text)
        self._set_form(request)

    def _check_input(self, request: InferRequest, name: str, prefix: str) -> None:
        tensor, (kind, shape) = request.inputs[name], self._inputs[name]
        where = f"for model '{self.name}'"
        if tensor.datatype != kind:
            text = (
                f"inference input '{name}' data-type is '{tensor.datatype}', but model '{self.name}' expects '{kind}'"
            )
            raise refuse(prefix + text)
        fits = len(shape) == len(tensor.shape) and all(
            has == wants or (wants < 0 and has >= 0) for has, wants in zip(tensor.shape, shape, strict=True)
        )
        if not fits:
            text = f"unexpected shape for input '{name}' {where}. Expected {_dims(shape)}, got {_dims(tensor.shape)}. "
            raise refuse(prefix + text + (_NOTE.strip() if self._batches else ""))
        expected = count_of(tensor.shape) * ITEM_BYTES.get(kind, 0)
        if kind != BYTES and len(tensor.data) != expected:
            text = f"input byte size mismatch for input '{name}' {where}. Expected {expected}, got {len(tensor.data)}"
            raise refuse(prefix + text)

    def _set_form(self, request: InferRequest) -> None:
        if self._batches:
            names = [name for name in request.inputs if name not in self._ragged]
            request.form = tuple((name, request.inputs[name].shape[1:]) for name in sorted(names))


def rules_of(config: pb.ModelConfig) -> Rules:
    """The batcher's settings in a config."""
    batching = config.dynamic_batching
    dynamic = config.HasField("dynamic_batching") and config.max_batch_size > 0
    return Rules(
        largest=max(1, config.max_batch_size),
        dynamic=dynamic,
        preferred=tuple(batching.preferred_batch_size) if dynamic else (),
        delay_s=batching.max_queue_delay_microseconds / 1e6 if dynamic else 0.0,
        most_queued=batching.default_queue_policy.max_queue_size if dynamic else 0,
    )


def _listed(names: Iterable[str]) -> str:
    return "[" + ",".join(f"'{name}'" for name in names) + "]"


def _dims(shape: Sequence[int]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"
