"""Triton's sequence batchers, as far as the tests' models need them (`sequence_batch_scheduler.cc`)."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from tuner.testing.fake.batcher import Batcher, Instance, Rules
from tuner.testing.fake.configs import datatype
from tuner.testing.fake.messages import BYTES, FORMATS, Code, InferRequest, RawTensor, RefusedError, joined
from tuner.testing.fake.timeline import Event, Timeline

_KINDS = pb.ModelSequenceBatching.Control


@dataclass(frozen=True)
class Controls:
    """The control inputs of a sequence batcher.

    Attributes:
        config: The sequence batcher's config.
        batches: Whether tensors have a batch dimension.
    """

    config: pb.ModelSequenceBatching
    batches: bool

    def add_to(self, request: InferRequest) -> None:
        """Add the control inputs to a request."""
        flags = {
            _KINDS.CONTROL_SEQUENCE_START: request.start,
            _KINDS.CONTROL_SEQUENCE_END: request.end,
            _KINDS.CONTROL_SEQUENCE_READY: request.ready,
        }
        shape = (1, 1) if self.batches else (1,)
        for entry in self.config.control_input:
            for control in entry.control:
                if control.kind == _KINDS.CONTROL_SEQUENCE_CORRID:
                    tensor = _number(datatype(control.data_type), shape, request.sequence)
                else:
                    tensor = _flag(control, shape, on=flags[control.kind])
                request.inputs[entry.name] = tensor


def _flag(control: Any, shape: tuple[int, ...], *, on: bool) -> RawTensor:
    for name, values in (("INT32", control.int32_false_true), ("FP32", control.fp32_false_true)):
        if values:
            return RawTensor(name, shape, struct.pack(FORMATS[name], values[int(on)]))
    return RawTensor("BOOL", shape, struct.pack("?", control.bool_false_true[int(on)]))


def _number(name: str, shape: tuple[int, ...], sequence: int | str) -> RawTensor:
    if name == BYTES:
        return RawTensor(BYTES, shape, joined([str(sequence).encode()]))
    return RawTensor(name, shape, struct.pack(FORMATS[name], int(sequence)))


@dataclass(eq=False)
class _Sequence:
    """A live sequence, and its queued requests."""

    waiting: deque[InferRequest] = field(default_factory=deque)
    under_way: bool = False
    ended: bool = False
    place: int = -1
    idle: Event | None = None


class SequenceBatcher:
    """Schedules the requests of sequences.

    Args:
        config: The sequence batcher's config.
        largest: `max_batch_size`.
        instances: The model's instances.
        timeline: The clock of all times.
        model: Name of the model, for messages.
        blank: Creates the request that fills the batch slot of a sequence without a request.
    """

    def __init__(
        self,
        config: pb.ModelSequenceBatching,
        *,
        largest: int,
        instances: Sequence[Instance],
        timeline: Timeline,
        model: str,
        blank: Callable[[], InferRequest],
    ) -> None:
        self._controls = Controls(config, largest > 0)
        self._timeline = timeline
        self._model = model
        self._iterative = config.iterative_sequence
        self._made_up = 0
        self._idle_s = config.max_sequence_idle_microseconds / 1e6
        self._alive: dict[int | str, _Sequence] = {}
        self._backlog: deque[_Sequence] = deque()
        runners: list[_Slots] = []
        for instance in instances:
            if config.HasField("oldest"):
                oldest = config.oldest
                preferred = tuple(oldest.preferred_batch_size)
                rules = Rules(max(1, largest), largest > 0, preferred, oldest.max_queue_delay_microseconds / 1e6)
                runners.append(_Oldest(instance, rules, timeline, oldest.max_candidate_sequences, self._controls))
            else:
                runners.append(_Direct(instance, max(1, largest), self._controls, blank))
        self._runners: Sequence[_Slots] = runners

    def arrive(self, request: InferRequest, at: float) -> None:
        """Queue a request.

        Raises:
            RefusedError: its sequence is not live.
        """
        if self._iterative:
            # Each request is its own sequence.
            self._made_up += 1
            request.sequence, request.start, request.end = self._made_up, True, True
        if not request.sequence:
            text = f"inference request to model '{self._model}' must specify a non-zero or non-empty correlation ID"
            raise RefusedError(Code.INVALID_ARGUMENT, text)
        sequence = self._alive.get(request.sequence)
        if sequence is None or sequence.ended:
            if not request.start:
                raise RefusedError(
                    Code.INVALID_ARGUMENT,
                    f"inference request for sequence {request.sequence} to model '{self._model}' must specify the "
                    "START flag on the first request of the sequence",
                )
            sequence = self._alive[request.sequence] = _Sequence()
            self._backlog.append(sequence)
        sequence.waiting.append(request)
        sequence.ended = sequence.ended or request.end
        self._watch(request.sequence, sequence, at)
        self._fill(at)
        if sequence.place >= 0:
            self._runners[sequence.place].run(at)

    def _watch(self, number: int | str, sequence: _Sequence, at: float) -> None:
        """End a sequence that has been idle for too long."""
        if sequence.idle:
            sequence.idle.dropped = True

        def expire(now: float) -> None:
            if sequence.waiting or sequence.under_way:
                self._watch(number, sequence, now)
            elif self._alive.get(number) is sequence:
                del self._alive[number]
                if sequence.place >= 0:
                    self._runners[sequence.place].free(sequence)
                self._fill(now)

        sequence.idle = self._timeline.at(at + self._idle_s, expire)

    def _fill(self, at: float) -> None:
        """Give free slots to waiting sequences."""
        while self._backlog:
            free = [(runner.taken, place) for place, runner in enumerate(self._runners) if runner.has_room]
            if not free:
                return
            place = min(free)[1]
            sequence = self._backlog.popleft()
            sequence.place = place
            self._runners[place].add(sequence, self._fill)
            self._runners[place].run(at)


class _Slots:
    """The sequence slots of an instance."""

    def __init__(self, count: int, controls: Controls) -> None:
        self.slots: list[_Sequence | None] = [None] * count
        self.controls = controls
        self._freed: Callable[[float], None] = lambda _: None

    @property
    def taken(self) -> int:
        return sum(slot is not None for slot in self.slots)

    @property
    def has_room(self) -> bool:
        return None in self.slots

    def add(self, sequence: _Sequence, freed: Callable[[float], None]) -> None:
        self._freed = freed
        self.slots[self.slots.index(None)] = sequence

    def free(self, sequence: _Sequence) -> None:
        self.slots[self.slots.index(sequence)] = None

    def over(self, sequence: _Sequence, request: InferRequest, at: float) -> None:
        """Note that a request of a sequence, or a step of it, has ended."""
        sequence.under_way = False
        if request.rescheduled:
            request.rescheduled = request.start = False
            sequence.waiting.appendleft(request)
            return
        if request.end and not sequence.waiting:
            if sequence.idle:
                sequence.idle.dropped = True
            self.free(sequence)
            self._freed(at)

    def run(self, at: float) -> None:
        raise NotImplementedError


class _Direct(_Slots):
    """The strategy `direct`: each sequence keeps its batch slot."""

    def __init__(self, instance: Instance, count: int, controls: Controls, blank: Callable[[], InferRequest]) -> None:
        super().__init__(count, controls)
        self._instance = instance
        self._blank = blank
        self._busy = False

    def run(self, at: float) -> None:
        if self._busy or not any(slot and slot.waiting for slot in self.slots):
            return
        taken = [(slot, slot.waiting.popleft()) if slot and slot.waiting else None for slot in self.slots]
        while taken[-1] is None:
            taken.pop()
        batch = []
        for pair in taken:
            request = pair[1] if pair else self._blank()
            self.controls.add_to(request)
            batch.append(request)
            if pair:
                pair[0].under_way = True
        self._busy = True

        def done(now: float) -> None:
            self._busy = False
            for pair in taken:
                if pair:
                    self.over(*pair, now)
            self.run(now)

        self._instance.execute(batch, at, done)


class _Oldest(_Slots):
    """The strategy `oldest`: a batch consists of the oldest request of each of several sequences."""

    def __init__(
        self, instance: Instance, rules: Rules, timeline: Timeline, candidates: int, controls: Controls
    ) -> None:
        super().__init__(max(1, candidates), controls)
        self._instance = instance
        self._batcher = Batcher(rules, [self], timeline)
        self._of: dict[InferRequest, _Sequence] = {}

    def run(self, at: float) -> None:
        for slot in self.slots:
            if slot and slot.waiting and not slot.under_way:
                slot.under_way = True
                request = slot.waiting.popleft()
                self._of[request] = slot
                self.controls.add_to(request)
                self._batcher.arrive(request, at)

    def execute(self, batch: Sequence[Any], at: float, done: Callable[[float], None]) -> None:
        def ended(now: float) -> None:
            for request in batch:
                self.over(self._of.pop(request), request, now)
            done(now)
            self.run(now)

        self._instance.execute(batch, at, ended)


def blank_inputs(shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, RawTensor]:
    """Inputs of zeros, with given types and shapes."""
    made = {}
    for name, (kind, shape) in shapes.items():
        count = 1
        for length in shape:
            count *= max(1, length)
        width = 4 if kind == BYTES else struct.calcsize(FORMATS.get(kind, "H"))
        made[name] = RawTensor(kind, tuple(max(1, length) for length in shape), bytes(width * count))
    return made
