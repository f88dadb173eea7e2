"""The backend `fake`: a model described by its config's `parameters`, without a process of its own.

Each parameter is a `string_value`; times are in us where their names say so:

service_us              service time of an execution (default 1000)
service_us_per_item     additional service time of each item of the batch (default 0)
service_us_table        instead of both, such as `1:1000 8:3000`: service time by batch size, linear in between and
                        beyond
slowdown                how much an execution delays each concurrent one, as a share of its own service time (default 0:
                        instances are independent; 1: two concurrent ones take twice as long, as on one core)
slower_by               increase of service times after `slower_over_s` seconds (default 1), as a share (default 0):
                        0.5 is 50 % slower
load_us                 time to load (default 0)
load_error              loading fails with this message
out_of_memory_when_instances   loading fails out of memory with at least this many instances
crash_at_load           the server ends with this signal (`SIGABRT`) or exit code during loading
crash_when_batch_exceeds, crash_after   the server ends at an execution of more items, or after so many executions
crash_with              the signal or exit code of that, as in `crash_at_load` (default `SIGABRT`)
memory_when_batch_exceeds      an execution of more items fails out of memory
hang_at_load            the model never becomes ready (`true`)
hang_when_batch_exceeds, hang_after     an execution never ends, and its instance executes nothing more
hang_when_instances     hangs only with at least this many instances
stall_after, stall_s    after so many executions, one takes that many seconds longer
fail_every, message     every n-th request gets an error (default message `not this one`)
wrong_from_batch        executions of at least this many items return wrong values
wrong_by                deviation of wrong values, as a share of the correct ones (default 0.5)

An output is the input at the same position, or else the first input, cut or repeated to the output's shape; a dimension
of -1 has the input's length.
"""

from __future__ import annotations

import array
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner.testing.fake.messages import (
    BYTES,
    ITEM_BYTES,
    Code,
    InferRequest,
    InferResponse,
    RawTensor,
    RefusedError,
    count_of,
)
from tuner.testing.fake.timeline import Event, Timeline

if TYPE_CHECKING:
    from collections.abc import Iterable

_ARRAYS = {"FP32": "f", "FP64": "d", "INT32": "i", "INT64": "q", "UINT8": "B", "INT8": "b", "INT16": "h"}
_CUDA_OUT_OF_MEMORY = "CUDA error: out of memory (allocating 4294967296 bytes)"


class Parameters:
    """The parameters of a config, by name.

    Args:
        values: Their `string_value`s.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str, default: str = "") -> str:
        """The text of a parameter."""
        return self._values.get(name, default)

    def number(self, name: str, default: float = 0.0) -> float:
        """The number of a parameter.

        Raises:
            RefusedError: it is not a number.
        """
        try:
            return float(self._values.get(name, default))
        except ValueError:
            text = f"parameter {name!r} must be a number, got {self._values[name]!r}"
            raise RefusedError(Code.INVALID_ARGUMENT, text) from None

    def beyond(self, name: str, value: float) -> bool:
        """Whether a value exceeds a limit; False if the limit is not set."""
        return name in self and value > self.number(name)


@dataclass(frozen=True)
class ServiceTime:
    """The service time of an execution that runs alone.

    Attributes:
        points: Batch sizes and seconds, in ascending order.
    """

    points: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, parameters: Parameters) -> ServiceTime:
        """The service time that parameters describe.

        Raises:
            RefusedError: the parameters are invalid.
        """
        if table := parameters.text("service_us_table").replace(",", " "):
            try:
                pairs = [entry.split(":") for entry in table.split()]
                points = tuple(sorted((float(size), float(us) / 1e6) for size, us in pairs))
            except ValueError:
                text = f"parameter 'service_us_table' must be like '1:1000 8:3000', got {table!r}"
                raise RefusedError(Code.INVALID_ARGUMENT, text) from None
            return cls(points if len(points) > 1 else (*points, (points[0][0] + 1, points[0][1])))
        base, item = parameters.number("service_us", 1000) / 1e6, parameters.number("service_us_per_item") / 1e6
        return cls(((0.0, base), (1.0, base + item)))

    def seconds(self, size: int) -> float:
        """The service time of a batch size, in s."""
        after = next((at for at, (batch, _) in enumerate(self.points) if batch >= size), len(self.points) - 1)
        (size_0, s_0), (size_1, s_1) = self.points[max(0, after - 1)], self.points[max(1, after)]
        return max(0.0, s_0 + (s_1 - s_0) * (size - size_0) / (size_1 - size_0))


@dataclass(eq=False)
class _Execution:
    alone_s: float
    left: float  # remaining share of the execution
    takes_s: float
    ended: Callable[[float], None]
    event: Event | None = None


class Executions:
    """Concurrent executions, which slow each other down.

    Args:
        timeline: The clock of all times.
        slowdown: See the top of the file.
    """

    def __init__(self, timeline: Timeline, slowdown: float) -> None:
        self._timeline = timeline
        self._slowdown = slowdown
        self._running: list[_Execution] = []
        self._now = 0.0

    def begin(self, alone_s: float, at: float, ended: Callable[[float], None]) -> None:
        """Begin an execution with a service time in s."""
        self._advance(at)
        self._running.append(_Execution(alone_s, 1.0, alone_s, ended))
        self._plan(at)

    def _advance(self, at: float) -> None:
        for execution in self._running:
            execution.left -= (at - self._now) / execution.takes_s if execution.takes_s > 0 else execution.left
        self._now = at

    def _plan(self, at: float) -> None:
        everything = sum(execution.alone_s for execution in self._running)
        for execution in self._running:
            takes_s = execution.alone_s + self._slowdown * (everything - execution.alone_s)
            if execution.event and takes_s == execution.takes_s:
                continue
            execution.takes_s = takes_s
            if execution.event:
                execution.event.dropped = True
            execution.event = self._timeline.at(at + max(0.0, execution.left) * takes_s, self._ender(execution))

    def _ender(self, execution: _Execution) -> Callable[[float], None]:
        def end(at: float) -> None:
            self._advance(at)
            self._running.remove(execution)
            self._plan(at)
            execution.ended(at)

        return end


def crash(how: str) -> None:
    """End this process with a signal or an exit code, as in the parameters."""
    sys.stdout.flush()
    if how.lstrip("-").isdigit():
        os._exit(int(how))
    number = signal.Signals[how]
    with contextlib.suppress(OSError, ValueError):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


@dataclass(frozen=True)
class Shape:
    """An output: its type, and its dimensions without the batch dimension."""

    name: str
    datatype: str
    dims: tuple[int, ...]


class NativeModel:
    """All instances of a model of the backend `fake`.

    Args:
        parameters: The parameters of its config.
        inputs: The names of its inputs, in order.
        outputs: Its outputs.
        batches: Whether tensors have a batch dimension.
        count: Number of instances.
        timeline: The clock of all times.
        speed: The current speed of the machine, as a factor.
    """

    def __init__(
        self,
        parameters: Parameters,
        *,
        inputs: Sequence[str],
        outputs: Iterable[Shape],
        batches: bool,
        count: int,
        timeline: Timeline,
        speed: Callable[[], float],
    ) -> None:
        self.parameters = parameters
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs)
        self._batches = batches
        self._count = count
        self._timeline = timeline
        self._speed = speed
        self._service = ServiceTime.of(parameters)
        self._at_once = Executions(timeline, parameters.number("slowdown"))
        self._slower_by = parameters.number("slower_by")
        self._slower_over_s = parameters.number("slower_over_s", 1.0)
        self._fail_every = int(parameters.number("fail_every"))
        self._hangs = count >= parameters.number("hang_when_instances")
        self._wrong_from = parameters.number("wrong_from_batch", float("inf"))
        self._wrong_by = parameters.number("wrong_by", 0.5)
        self._first_at: float | None = None
        self._executions = 0
        self._seen = 0

    def refuse(self) -> None:
        """Fail or crash while loading, if the parameters say so.

        Raises:
            RefusedError: the model fails to load.
        """
        if "crash_at_load" in self.parameters:
            crash(self.parameters.text("crash_at_load"))
        if "load_error" in self.parameters:
            raise RefusedError(Code.INTERNAL, self.parameters.text("load_error"))
        if self._count >= self.parameters.number("out_of_memory_when_instances", float("inf")):
            raise RefusedError(Code.INTERNAL, _CUDA_OUT_OF_MEMORY)

    def instances(self, finished: Callable[..., None]) -> list[NativeInstance]:
        """Its instances; `finished` is called for each execution with requests, responses, start and end time."""
        return [NativeInstance(self, finished) for _ in range(self._count)]

    def begin(self, size: int, at: float, ended: Callable[[float], None]) -> None:
        """Begin an execution; `ended` is never called if it hangs."""
        self._executions += 1
        limits = self.parameters
        if limits.beyond("crash_when_batch_exceeds", size) or limits.beyond("crash_after", self._executions):
            crash(limits.text("crash_with", "SIGABRT"))
        hangs = limits.beyond("hang_when_batch_exceeds", size) or limits.beyond("hang_after", self._executions)
        if hangs and self._hangs:
            return
        seconds = self._service.seconds(size) / self._speed()
        if self._slower_by:
            self._first_at = at if self._first_at is None else self._first_at
            seconds *= 1 + self._slower_by * min(1.0, (at - self._first_at) / self._slower_over_s)
        if self._executions - 1 == limits.number("stall_after", -1):
            seconds += limits.number("stall_s")
        self._at_once.begin(seconds, at, ended)

    def answer(self, request: InferRequest, size: int) -> InferResponse:
        """The response to one request of an execution with a number of items."""
        self._seen += 1
        if self.parameters.beyond("memory_when_batch_exceeds", size):
            return InferResponse(error=RefusedError(Code.INTERNAL, _CUDA_OUT_OF_MEMORY))
        if self._fail_every and self._seen % self._fail_every == 0:
            return InferResponse(error=RefusedError(Code.INTERNAL, self.parameters.text("message", "not this one")))
        wrong_by = self._wrong_by if size >= self._wrong_from else 0.0
        outputs = {shape.name: self._output(request, place, shape) for place, shape in enumerate(self._outputs)}
        if wrong_by:
            outputs = {name: _wrong(tensor, wrong_by) for name, tensor in outputs.items()}
        return InferResponse(outputs)

    def _output(self, request: InferRequest, place: int, shape: Shape) -> RawTensor:
        names = [name for name in self._inputs if name in request.inputs]
        source = request.inputs[names[min(place, len(names) - 1)]]
        batch = source.shape[:1] if self._batches else ()
        own = source.shape[len(batch) :]
        dims = tuple(
            length if length >= 0 else (own[axis] if axis < len(own) else 1) for axis, length in enumerate(shape.dims)
        )
        if source.datatype == shape.datatype and own == dims:
            return RawTensor(shape.datatype, source.shape, source.data)
        needed = count_of(batch + dims)
        if shape.datatype == BYTES:
            return RawTensor(BYTES, batch + dims, b"\1\0\0\0x" * needed)
        length = needed * ITEM_BYTES[shape.datatype]
        data = source.data or b"\0"
        return RawTensor(shape.datatype, batch + dims, (data * (length // len(data) + 1))[:length])


class NativeInstance:
    """One instance of the model."""

    def __init__(self, model: NativeModel, finished: Callable[..., None]) -> None:
        self._model = model
        self._finished = finished

    def execute(self, batch: Sequence[Any], at: float, done: Callable[[float], None]) -> None:
        """See `batcher.Instance`."""
        size = sum(request.size for request in batch if request.ready)

        def ended(now: float) -> None:
            answers = [self._model.answer(request, size) for request in batch]
            self._finished(batch, answers, at, now)
            done(now)

        self._model.begin(size, at, ended)


def _wrong(tensor: RawTensor, share: float) -> RawTensor:
    kind = _ARRAYS.get(tensor.datatype)
    if kind is None:
        return RawTensor(tensor.datatype, tensor.shape, bytes(byte ^ 1 for byte in tensor.data))
    values = array.array(kind, tensor.data)
    if kind in "fd":
        changed = array.array(kind, [value * (1 + share) + share for value in values])
    else:
        changed = array.array(kind, [value ^ 1 for value in values])
    return RawTensor(tensor.datatype, tensor.shape, changed.tobytes())
