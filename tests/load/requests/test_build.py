from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from tuner.config.interface import ModelInterface, Tensor
from tuner.core.errors import InputError, JobError
from tuner.load.inputs.made_up import make_inputs
from tuner.load.inputs.tensors import InputTensor, RequestStep, Stream, text_array
from tuner.load.requests.build import RequestOptions, build_workload
from tuner.load.requests.message import Places, Slice
from tuner.load.workload import Request, Sequences, Workload
from tuner.options.endpoint import Protocol
from tuner.options.parameters import Parameter

PROTOCOLS: tuple[Protocol, ...] = ("grpc", "http")
MODEL = ModelInterface(
    "m",
    8,
    (Tensor("X", "FP32", (2, 2)), Tensor("Y", "INT8", (3,))),
    (Tensor("OUT", "FP32", (1,)), Tensor("MORE", "BYTES", (1,))),
)


def steps(pool: int = 1, batch_size: int = 1, model: ModelInterface = MODEL) -> Stream:
    return make_inputs(model, shapes={}, pool=pool, seed=0, batch_size=batch_size)


def message(request: Request) -> Any:
    assert request.json_length is None
    return service_pb2.ModelInferRequest.FromString(request.body)


def head(request: Request) -> Any:
    """The JSON of a request over HTTP."""
    return json.loads(request.body[: request.json_length])


def raw(request: Request, protocol: Protocol) -> bytes:
    """All tensors, one behind the other."""
    return b"".join(message(request).raw_input_contents) if protocol == "grpc" else request.body[request.json_length :]


def only(workload: Workload) -> Request:
    (request,) = workload.requests
    return request


class TestEither:
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_each_step_becomes_a_request_of_its_stream(self, protocol: Protocol) -> None:
        streams = (steps(3), steps(2))
        workload = build_workload(MODEL, streams, RequestOptions(), protocol)
        assert (workload.model, workload.version, workload.batch_size) == ("m", "", 1)
        assert (workload.sequences, workload.decoupled) == (None, False)
        assert [len(stream) for stream in workload.streams] == [3, 2]
        for requests, stream in zip(workload.streams, streams, strict=True):
            for request, step in zip(requests, stream, strict=True):
                assert raw(request, protocol) == b"".join(tensor.raw() for tensor in step.inputs)
                assert request.expected == {}

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @pytest.mark.parametrize(
        ("datatype", "values"),
        [
            ("FP32", np.arange(6, dtype=np.float32).reshape(3, 2).T),
            ("BOOL", np.array([[True, False]])),
            ("BF16", np.array([[0x3F80, 0x0000]], np.uint16)),
            ("BYTES", text_array([b"a", b"", b"long enough"], (1, 3))),
        ],
    )
    def test_tensors_are_in_their_raw_form(self, protocol: Protocol, datatype: str, values: Any) -> None:
        tensor = InputTensor("X", datatype, values)
        model = ModelInterface("m", 0, (Tensor("X", datatype, (-1, -1)),), ())
        request = only(build_workload(model, [(RequestStep((tensor,)),)], RequestOptions(), protocol))
        assert raw(request, protocol) == tensor.raw()

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_what_is_expected_is_kept_as_raw_bytes(self, protocol: Protocol) -> None:
        answers = (
            InputTensor("OUT", "FP32", np.array([[1.5]], np.float32)),
            InputTensor("MORE", "BYTES", text_array([b"ab"], (1, 1))),
        )
        stream = (RequestStep(steps()[0].inputs, answers),)
        request = only(build_workload(MODEL, [stream], RequestOptions(), protocol))
        assert request.expected == {"OUT": b"\0\0\xc0\x3f", "MORE": b"\2\0\0\0ab"}

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_a_workload_can_go_to_another_process(self, protocol: Protocol) -> None:
        stream = (RequestStep(steps()[0].inputs, (InputTensor("OUT", "FP32", np.zeros((1, 1), np.float32)),)),)
        workload = build_workload(MODEL, [stream], RequestOptions(sequences=Sequences()), protocol)
        assert pickle.loads(pickle.dumps(workload)) == workload  # noqa: S301 (our own)

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_it_says_how_requests_go_together(self, protocol: Protocol) -> None:
        options = RequestOptions(version="2", sequences=Sequences(length=5))
        workload = build_workload(MODEL, [steps()], options, protocol)
        assert (workload.version, workload.sequences) == ("2", Sequences(length=5))

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_it_says_how_many_inferences_a_request_carries(self, protocol: Protocol) -> None:
        workload = build_workload(MODEL, [steps(batch_size=4)], RequestOptions(batch_size=4), protocol)
        assert workload.batch_size == 4

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_tensors_of_another_batch_size_are_a_mistake_of_the_caller(self, protocol: Protocol) -> None:
        with pytest.raises(ValueError, match="do not have batch size 1$"):
            build_workload(MODEL, [steps(batch_size=4)], RequestOptions(), protocol)

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_an_output_that_is_not_there_names_the_nearest(self, protocol: Protocol) -> None:
        with pytest.raises(InputError, match=r"^model 'm' has no output 'OUTS'; did you mean 'OUT'\?$"):
            build_workload(MODEL, [steps()], RequestOptions(outputs=("OUTS",)), protocol)

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_what_is_expected_must_be_asked_for(self, protocol: Protocol) -> None:
        stream = (RequestStep(steps()[0].inputs, (InputTensor("OUT", "FP32", np.zeros((1, 1), np.float32)),)),)
        with pytest.raises(InputError, match="^validation_data has output 'OUT', which is not requested$"):
            build_workload(MODEL, [stream], RequestOptions(outputs=("MORE",)), protocol)


class TestGrpc:
    def request(self, options: RequestOptions = RequestOptions(), places: Places | None = None) -> Any:  # noqa: B008 (frozen)
        stream = steps(batch_size=options.batch_size)
        return message(only(build_workload(MODEL, [stream], options, "grpc", [[places]] if places else None)))

    def test_it_names_the_model_and_describes_its_inputs(self) -> None:
        request = self.request(RequestOptions(batch_size=2))
        assert (request.model_name, request.model_version) == ("m", "")
        assert [(i.name, i.datatype, list(i.shape)) for i in request.inputs] == [
            ("X", "FP32", [2, 2, 2]),
            ("Y", "INT8", [2, 3]),
        ]
        assert not request.outputs
        assert not request.parameters

    def test_it_names_the_version(self) -> None:
        assert self.request(RequestOptions(version="3")).model_version == "3"

    def test_it_names_the_outputs_that_are_asked_for(self) -> None:
        request = self.request(RequestOptions(outputs=("MORE",)))
        assert [output.name for output in request.outputs] == ["MORE"]
        assert not request.outputs[0].parameters

    @pytest.mark.parametrize(
        ("value", "kind"),
        [(True, "bool_param"), (5, "int64_param"), (-5, "int64_param"), (0.5, "double_param"), ("x", "string_param")],
    )
    def test_parameters_are_of_their_kind(self, value: Any, kind: str) -> None:
        parameter = self.request(RequestOptions(parameters={"a": value})).parameters["a"]
        assert parameter.WhichOneof("parameter_choice") == kind
        assert getattr(parameter, kind) == value

    def test_priority_and_time_out_are_parameters(self) -> None:
        parameters = self.request(RequestOptions(priority=2**64 - 1, timeout_us=5_000)).parameters
        assert parameters["priority"].uint64_param == 2**64 - 1
        assert parameters["timeout"].int64_param == 5_000

    def test_only_a_decoupled_model_is_asked_to_mark_the_end(self) -> None:
        workload = build_workload(MODEL, [steps()], RequestOptions(decoupled=True), "grpc")
        assert workload.decoupled
        assert message(only(workload)).parameters["triton_enable_empty_final_response"].bool_param is True
        assert not self.request().parameters

    def test_tensors_in_shared_memory_are_named_by_their_place(self) -> None:
        request = self.request(places=Places({"X": Slice("in", 256, 16)}, {"OUT": Slice("out", 0, 4)}))
        x, y = request.inputs
        assert x.parameters["shared_memory_region"].string_param == "in"
        assert x.parameters["shared_memory_offset"].int64_param == 256
        assert x.parameters["shared_memory_byte_size"].int64_param == 16
        assert not y.parameters
        assert [len(content) for content in request.raw_input_contents] == [3]
        (output,) = request.outputs
        assert output.name == "OUT"
        assert output.parameters["shared_memory_region"].string_param == "out"
        assert output.parameters["shared_memory_byte_size"].int64_param == 4

    def test_what_protobuf_cannot_hold_is_refused(self) -> None:
        tensor = _Huge("X", "UINT8", np.zeros(1, np.uint8))
        model = ModelInterface("m", 0, (Tensor("X", "UINT8", (-1,)),), ())
        with pytest.raises(InputError, match=r"^a request to model 'm' has 3\.0 GiB; the limit of gRPC is 2 GiB$"):
            build_workload(model, [(RequestStep((tensor,)),)], RequestOptions(), "grpc")


class _Huge(InputTensor):
    def raw(self) -> bytes:
        # Zeros that nobody looks at take no memory.
        return bytes(3 * 2**30)


class TestHttp:
    def request(self, options: RequestOptions = RequestOptions(), places: Places | None = None) -> Request:  # noqa: B008 (frozen)
        stream = steps(batch_size=options.batch_size)
        return only(build_workload(MODEL, [stream], options, "http", [[places]] if places else None))

    def test_it_describes_its_inputs_and_wants_all_outputs_in_binary(self) -> None:
        assert head(self.request(RequestOptions(batch_size=2))) == {
            "parameters": {"binary_data_output": True},
            "inputs": [
                {"name": "X", "datatype": "FP32", "shape": [2, 2, 2], "parameters": {"binary_data_size": 32}},
                {"name": "Y", "datatype": "INT8", "shape": [2, 3], "parameters": {"binary_data_size": 6}},
            ],
        }

    def test_it_names_the_outputs_that_are_asked_for(self) -> None:
        described = head(self.request(RequestOptions(outputs=("MORE",))))
        assert described["outputs"] == [{"name": "MORE"}]
        assert described["parameters"] == {"binary_data_output": True}

    def test_parameters_are_of_their_kind(self) -> None:
        own: dict[str, Parameter] = {"a": True, "b": 5, "c": 0.5, "d": 'te"xt'}
        described = head(self.request(RequestOptions(parameters=own, priority=3, timeout_us=7)))
        assert described["parameters"] == {**own, "priority": 3, "timeout": 7, "binary_data_output": True}

    def test_tensors_in_shared_memory_are_named_by_their_place(self) -> None:
        request = self.request(places=Places({"X": Slice("in", 256, 16)}, {"OUT": Slice("out", 0, 4)}))
        x, y = head(request)["inputs"]
        assert x["parameters"] == {
            "shared_memory_region": "in",
            "shared_memory_offset": 256,
            "shared_memory_byte_size": 16,
        }
        assert y["parameters"] == {"binary_data_size": 3}
        assert len(raw(request, "http")) == 3
        (output,) = head(request)["outputs"]
        assert output["name"] == "OUT"
        assert output["parameters"]["shared_memory_region"] == "out"

    def test_a_decoupled_model_needs_grpc(self) -> None:
        with pytest.raises(JobError, match=r"^model 'm' is decoupled, which HTTP does not support; use gRPC"):
            self.request(RequestOptions(decoupled=True))


class TestOptions:
    def test_a_parameter_that_triton_keeps_for_itself_is_refused(self) -> None:
        with pytest.raises(JobError, match=r"^parameter 'priority' is reserved; use --priority$"):
            RequestOptions(parameters={"priority": 3})

    @pytest.mark.parametrize("priority", [-1, 2**64])
    def test_a_priority_beyond_64_bits_is_refused(self, priority: int) -> None:
        with pytest.raises(JobError, match=rf"^priority must be between 0 and 2\^64 - 1, got {priority}$"):
            RequestOptions(priority=priority)

    @pytest.mark.parametrize("timeout_us", [-1, 2**63])
    def test_a_time_out_beyond_63_bits_is_refused(self, timeout_us: int) -> None:
        with pytest.raises(JobError, match=rf"^queue time-out must be between 0 and 2\^63 - 1 us, got {timeout_us}"):
            RequestOptions(timeout_us=timeout_us)

    def test_sequences_have_no_batches(self) -> None:
        RequestOptions(sequences=Sequences(), batch_size=1)
        with pytest.raises(JobError, match=r"^batch size must be 1 for a model with a sequence batcher, got 4$"):
            RequestOptions(sequences=Sequences(), batch_size=4)
