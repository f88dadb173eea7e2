from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from tuner.config.interface import ModelInterface, Tensor
from tuner.core.errors import Cause, InputError, JobError, ServerDiedError
from tuner.core.mark import Mark, marks_on_files
from tuner.load.inputs.made_up import make_inputs
from tuner.load.inputs.tensors import InputTensor, RequestStep, Stream, text_array
from tuner.load.requests.build import RequestOptions
from tuner.load.requests.registries import Region, SystemRegion
from tuner.load.requests.shared_memory import shared_workload
from tuner.load.workload import Request

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (where the kernel has it)
MODEL = ModelInterface(
    "m",
    8,
    (Tensor("X", "FP32", (3,)), Tensor("TEXT", "BYTES", (2,))),
    (Tensor("OUT", "FP64", (5,)), Tensor("ANY", "FP32", (-1,)), Tensor("WORDS", "BYTES", (2,))),
)


class Noted:
    """A `Registry` that only takes notes; what a server makes of it is tested with a server."""

    def __init__(self, *, refuses: int | None = None, dies: bool = False, in_use: int = 0) -> None:
        self.known: list[Region] = []
        self.seen: list[Region] = []
        self._refuses = refuses
        self._dies = dies
        self._in_use = in_use

    def register(self, region: Region) -> None:
        if len(self.seen) == self._refuses:
            raise JobError("no")
        self.seen.append(region)
        self.known.append(region)

    def unregister(self, region: Region) -> None:
        if self._dies:
            raise ServerDiedError("gone", cause=Cause.CRASHED)
        if self._in_use:
            self._in_use -= 1
            raise JobError("it is currently in use")
        if region in self.known:
            self.known.remove(region)

    def close(self) -> None:
        pass


def ours() -> list[Mark]:
    """The marks of files of this process."""
    return [mark for mark in marks_on_files() if mark.pid == os.getpid()]


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = len(ours())
    yield
    assert len(ours()) == before


def steps(pool: int = 1, batch_size: int = 1) -> Stream:
    return make_inputs(MODEL, shapes={}, pool=pool, seed=0, batch_size=batch_size)


def place(tensor: service_pb2.ModelInferRequest.InferInputTensor) -> tuple[str, int, int]:
    parameters = tensor.parameters
    return (
        parameters["shared_memory_region"].string_param,
        parameters["shared_memory_offset"].int64_param,
        parameters["shared_memory_byte_size"].int64_param,
    )


def message(request: Request) -> service_pb2.ModelInferRequest:
    return service_pb2.ModelInferRequest.FromString(request.body)


def test_every_input_lies_where_its_request_says() -> None:
    registry = Noted()
    streams = (steps(3), steps(2))
    with shared_workload(MODEL, streams, RequestOptions(), "grpc", registry) as workload:
        inputs, outputs = registry.known
        assert isinstance(inputs, SystemRegion)
        content = (SHARED_MEMORY / inputs.key[1:]).read_bytes()
        assert len(content) == inputs.byte_size
        assert [len(stream) for stream in workload.streams] == [3, 2]
        for request, step in zip(workload.requests, (*streams[0], *streams[1]), strict=True):
            assert not message(request).raw_input_contents
            for described, tensor in zip(message(request).inputs, step.inputs, strict=True):
                region, offset, size = place(described)
                assert region == inputs.name
                assert content[offset : offset + size] == tensor.raw()
        assert outputs.byte_size == (SHARED_MEMORY / outputs.name).stat().st_size
    assert registry.known == []


def test_every_output_of_every_request_has_room_of_its_own() -> None:
    registry = Noted()
    options = RequestOptions(batch_size=4)
    with shared_workload(MODEL, [steps(3, 4)], options, "grpc", registry, output_bytes=1_000) as workload:
        _, region = registry.known
        rooms = [place(output) for request in workload.requests for output in message(request).outputs]
        assert {name for name, _, _ in rooms} == {region.name}
        # 4 x 5 doubles; 4 x the option where the config does not say.
        assert [size for _, _, size in rooms] == [160, 4_000, 4_000] * 3
        ends = [0]
        for _, offset, size in rooms:
            assert offset >= ends[-1]
            ends.append(offset + size)
        assert ends[-1] <= region.byte_size


def test_nothing_shares_a_cache_line() -> None:
    with shared_workload(MODEL, [steps(3)], RequestOptions(), "grpc", Noted()) as workload:
        tensors = [t for request in workload.requests for t in (*message(request).inputs, *message(request).outputs)]
        assert all(place(tensor)[1] % 64 == 0 for tensor in tensors)


def test_only_outputs_that_are_asked_for_get_room() -> None:
    registry = Noted()
    with shared_workload(MODEL, [steps()], RequestOptions(outputs=("OUT",)), "grpc", registry) as workload:
        (request,) = workload.requests
        assert [output.name for output in message(request).outputs] == ["OUT"]
        assert registry.known[1].byte_size < 1_000


def test_a_model_without_batches_has_room_for_one() -> None:
    model = ModelInterface("m", 0, (Tensor("X", "INT8", (3,)),), (Tensor("OUT", "FP64", (5,)),))
    stream = make_inputs(model, shapes={}, pool=1, seed=0)
    with shared_workload(model, [stream], RequestOptions(), "grpc", Noted()) as workload:
        (output,) = message(workload.requests[0]).outputs
        assert place(output)[2] == 40


def test_a_tensor_without_elements_goes_over_the_network() -> None:
    variable = ModelInterface("m", 0, (Tensor("X", "FP32", (-1,)), Tensor("Y", "FP32", (-1,))), ())
    empty, full = (InputTensor(name, "FP32", np.ones(size, np.float32)) for name, size in (("X", 0), ("Y", 3)))
    for inputs in ((empty, full), (full, empty)):
        with shared_workload(variable, [(RequestStep(inputs),)], RequestOptions(), "grpc", Noted()) as workload:
            sent = message(workload.requests[0])
            assert list(sent.raw_input_contents) == [b""]
            told = {each.name: dict(each.parameters) for each in sent.inputs}
            assert not told["X"]
            assert told["Y"]["shared_memory_byte_size"].int64_param == 12


def test_requests_without_inputs_have_a_region_too() -> None:
    model = ModelInterface("m", 0, (), (Tensor("OUT", "FP64", (5,)),))
    registry = Noted()
    with shared_workload(model, [(RequestStep(()),)], RequestOptions(), "grpc", registry):
        assert registry.known[0].byte_size > 0


def test_what_a_killed_run_leaves_is_found() -> None:
    with shared_workload(MODEL, [steps()], RequestOptions(), "grpc", Noted()):
        assert len(ours()) >= 2
        assert not any(mark.abandoned for mark in ours())


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_all_is_gone_after_an_error(kind: type[BaseException]) -> None:
    registry = Noted()
    with pytest.raises(kind), shared_workload(MODEL, [steps()], RequestOptions(), "grpc", registry):
        raise kind
    assert registry.known == []
    assert len(registry.seen) == 2


@pytest.mark.parametrize("refused", [0, 1])
def test_all_is_gone_after_a_refusal(refused: int) -> None:
    registry = Noted(refuses=refused)
    with pytest.raises(JobError, match="^no$"), shared_workload(MODEL, [steps()], RequestOptions(), "grpc", registry):
        pass
    assert registry.known == []
    assert len(registry.seen) == refused


def test_memory_that_the_server_still_uses_is_closed_a_moment_later() -> None:
    registry = Noted(in_use=3)
    with shared_workload(MODEL, [steps()], RequestOptions(), "grpc", registry):
        assert len(registry.known) == 2
    assert registry.known == []


def test_a_server_that_is_gone_hides_no_error() -> None:
    registry = Noted(dies=True)
    with (
        pytest.raises(RuntimeError, match="^mine$"),
        shared_workload(MODEL, [steps()], RequestOptions(), "grpc", registry),
    ):
        raise RuntimeError("mine")
    with shared_workload(MODEL, [steps()], RequestOptions(), "grpc", registry):
        pass


def test_answers_that_are_to_be_checked_are_refused() -> None:
    answer = InputTensor("WORDS", "BYTES", text_array([b"a", b"b"], (1, 2)))
    stream = (RequestStep(steps()[0].inputs, (answer,)),)
    message = "^--shared-memory system and validation_data cannot be combined, because outputs are not read back; "
    with pytest.raises(JobError, match=message), shared_workload(MODEL, [stream], RequestOptions(), "grpc", Noted()):
        pass


def test_a_mistake_in_the_options_is_found_before_anything_is_made() -> None:
    registry = Noted()
    options = RequestOptions(outputs=("OUTS",))
    with (
        pytest.raises(InputError, match="no output 'OUTS'"),
        shared_workload(MODEL, [steps()], options, "grpc", registry),
    ):
        pass
    assert registry.seen == []


@pytest.mark.skipif(importlib.util.find_spec("cuda") is not None, reason="cuda-python is here")
def test_without_a_gpu_cuda_is_refused() -> None:
    registry = Noted()
    with (
        pytest.raises(JobError, match="^--shared-memory cuda"),
        shared_workload(MODEL, [steps()], RequestOptions(), "grpc", registry, kind="cuda"),
    ):
        pass
    assert registry.seen == []
