"""The contract of a Triton server over gRPC and HTTP. For each kind of server, a test class derives from
`AskedContract` and another one from `InferenceContract`; both need this fixture:

endpoints        the endpoints by protocol, of a server in explicit model control mode on the repository that
                 `write_models` writes, with the models `LOADED` loaded, and `slow` not loaded

Tests load and unload only `slow` and `auto_complete`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tuner.core.errors import Cause, LaunchError, ServerError
from tuner.options.endpoint import Endpoint, Protocol
from tuner.servers.client import TritonClient
from tuner.servers.model_control import ModelControl
from tuner.testing.repositories import ModelRepositoryFactory, config_text, stateful_config

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

LOADED = ("decoupled", "identity", "pipeline", "stateful", "fails_requests", "instances")
"""The config of the first model is incomplete, so that launchers must let the server complete it."""

_STEPS = """\
platform: "ensemble"
max_batch_size: 4
input [ { name: "IN" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ 4 ] } ]
ensemble_scheduling { step [
  { model_name: "identity" model_version: -1 input_map { key: "IN" value: "IN" } output_map { key: "OUT" value: "M" } },
  { model_name: "identity" model_version: -1 input_map { key: "IN" value: "M" } output_map { key: "OUT" value: "OUT" } }
] }
"""


def write_models(repository: ModelRepositoryFactory) -> None:
    """Write the repository of the contract."""
    batching = "dynamic_batching { }"
    repository.add("identity", config=config_text(max_batch_size=4, more=f"version_policy {{ all {{}} }} {batching}"))
    model = repository.path / "identity"
    (model / "12").mkdir()
    (model / "12" / "model.py").write_bytes((model / "1" / "model.py").read_bytes())
    (repository.path / "pipeline" / "1").mkdir(parents=True)
    (repository.path / "pipeline" / "config.pbtxt").write_text(_STEPS, encoding="utf-8")
    decoupled = config_text(more="model_transaction_policy { decoupled: true }")
    repository.add("decoupled", config=decoupled.replace('backend: "python"', ""))
    diary = repository.path.parent / "diary"
    repository.add("stateful", config=config_text(more=stateful_config("direct { }"), diary=diary))
    repository.add("fails_requests", config=config_text(message="the model says no"))
    repository.add("instances", config=config_text(instances=3, max_batch_size=4, more=batching))
    repository.add("auto_complete", config="")
    repository.add("slow")


def request_of(model: str = "identity", **changes: Any) -> service_pb2.ModelInferRequest:
    """A request to one of the models; arguments can make it invalid."""
    fields = {"name": "IN", "datatype": "FP32", "shape": [1, 4], "version": "", **changes}
    request = service_pb2.ModelInferRequest(model_name=model, model_version=fields["version"])
    tensor = request.inputs.add()
    tensor.name, tensor.datatype = fields["name"], fields["datatype"]
    tensor.shape.extend(fields["shape"])
    default = np.arange(np.prod(fields["shape"]), dtype=np.float32).tobytes()
    request.raw_input_contents.append(fields.get("content", default))
    for name in fields.get("outputs", ()):
        request.outputs.add().name = name
    return request


def infer(endpoint: Endpoint, *, version: str, items: int) -> None:
    tensor = triton.InferInput("IN", (items, 4), "FP32")
    tensor.set_data_from_numpy(np.zeros((items, 4), np.float32))
    with triton.InferenceServerClient(endpoint.address) as client:
        client.infer("identity", [tensor], model_version=version, client_timeout=10)


_SHAPE = (
    r"unexpected shape for input 'IN' for model 'identity'\. Expected \[-1,4\], got \[{}\]\. "
    "NOTE: Setting a non-zero max_batch_size"
)


@pytest.mark.parametrize("protocol", PROTOCOLS)
class AskedContract:
    """Health, metadata, configs, statistics and model control, over either protocol."""

    @pytest.fixture
    def client(self, endpoints: dict[Protocol, Endpoint], protocol: Protocol) -> Iterator[TritonClient]:
        with TritonClient(endpoints[protocol], timeout_s=30) as client:
            yield client

    def test_server(self, client: TritonClient) -> None:
        info = client.server()
        assert info.name.startswith("tritontune-")
        assert info.version.count(".") == 2
        assert "statistics" in info.extensions

    def test_models(self, client: TritonClient) -> None:
        client.unload_model("slow")
        states = dict(client.models())
        assert states.pop("slow") in {"", "UNAVAILABLE", "UNLOADING"}
        states.pop("auto_complete")
        assert states == dict.fromkeys(LOADED, "READY")

    def test_readiness(self, client: TritonClient) -> None:
        assert client.is_model_ready("identity")
        assert client.is_model_ready("identity", "12")
        assert not client.is_model_ready("identity", "2")
        assert not client.is_model_ready("unheard-of")

    def test_effective_config(self, client: TritonClient) -> None:
        config = client.model_config("identity")
        assert (config.name, config.backend, config.max_batch_size) == ("identity", "python", 4)
        # Completed by the server.
        assert (config.instance_group[0].name, config.default_model_filename) == ("identity_0", "model.py")
        assert list(config.dynamic_batching.preferred_batch_size) == [4]
        assert config.optimization.input_pinned_memory.enable
        assert client.model_config("identity", "1") == config

    def test_effective_config_of_an_ensemble(self, client: TritonClient) -> None:
        config = client.model_config("pipeline")
        assert (config.platform, config.backend, len(config.ensemble_scheduling.step)) == ("ensemble", "", 2)
        assert not config.instance_group
        assert config.version_policy.latest.num_versions == 1

    def test_a_model_is_loaded_and_unloaded(self, client: TritonClient) -> None:
        client.load_model("slow")
        assert client.is_model_ready("slow")
        before = client.model_config("slow")
        client.load_model("slow", json.dumps(override(max_batch_size=3)))
        assert client.model_config("slow").max_batch_size == 3
        # A load without a config keeps the override.
        client.load_model("slow")
        assert client.model_config("slow").max_batch_size == 3
        unload(client, "slow")
        assert not client.is_model_ready("slow")
        client.load_model("slow")
        assert client.model_config("slow") == before
        unload(client, "slow")

    def test_a_model_that_completes_its_config(self, client: TritonClient) -> None:
        client.load_model("auto_complete")
        config = client.model_config("auto_complete")
        assert (config.max_batch_size, config.input[0].name) == (8, "IN")
        assert list(config.dynamic_batching.preferred_batch_size) == [8]
        assert config.instance_group[0].name == "auto_complete"
        unload(client, "auto_complete")

    def test_what_is_refused_leaves_what_is_loaded(self, client: TritonClient) -> None:
        client.load_model("slow")
        wrong = [{"nosuch": 1}, override(dynamic_batching={"preferred_batch_size": [9]})]
        for text in ["{", *map(json.dumps, wrong)]:
            with pytest.raises(ServerError, match=r"^failed to load 'slow', failed to poll from model repository$"):
                client.load_model("slow", text)
        assert client.is_model_ready("slow")
        unload(client, "slow")

    def test_statistics_are_of_the_version_that_is_asked_for(
        self, client: TritonClient, endpoints: dict[Protocol, Endpoint]
    ) -> None:
        before = {version: client.statistics("identity", version) for version in ("1", "12")}
        infer(endpoints["grpc"], version="1", items=3)
        deadline = time.monotonic() + 30
        while client.statistics("identity", "1").inference_count == before["1"].inference_count:
            assert time.monotonic() < deadline  # the server counts a request after it has sent the response
            time.sleep(0.001)
        after = client.statistics("identity", "1")
        assert after.inference_count - before["1"].inference_count == 3
        assert after.execution_count - before["1"].execution_count == 1
        assert after.inference_stats.success.count - before["1"].inference_stats.success.count == 1
        assert after.inference_stats.success.ns > before["1"].inference_stats.success.ns
        assert 3 in [batch.batch_size for batch in after.batch_stats]
        assert client.statistics("identity", "12") == before["12"]

    def test_statistics_without_a_version_are_of_the_latest(self, client: TritonClient) -> None:
        assert client.statistics("identity").version == "12"

    @pytest.mark.parametrize(
        ("ask", "words"),
        [
            (lambda client: client.model_config("unheard-of"), "Request for unknown model: 'unheard-of' is not found"),
            (lambda client: client.statistics("unheard-of"), "requested model 'unheard-of' is not available"),
            (
                lambda client: client.statistics("identity", "7"),
                "requested model version is not available for model 'identity'",
            ),
            (
                lambda client: client.load_model("unheard-of"),
                "failed to load 'unheard-of', failed to poll from model repository",
            ),
        ],
    )
    def test_what_is_not_there_is_the_servers_own_error(
        self, client: TritonClient, ask: Callable[[TritonClient], object], words: str
    ) -> None:
        with pytest.raises(ServerError, match=rf"^{words}$") as caught:
            ask(client)
        assert type(caught.value) is ServerError
        assert caught.value.cause is Cause.REQUESTS_FAILED

    def test_to_unload_what_is_not_there_is_no_error(self, client: TritonClient) -> None:
        client.unload_model("unheard-of")


def override(**changes: object) -> Mapping[str, object]:
    """A config of the contract's models as JSON, for a load request."""
    tensor = {"data_type": "TYPE_FP32", "dims": [4]}
    tensors = {"input": [{"name": "IN", **tensor}], "output": [{"name": "OUT", **tensor}]}
    return {"backend": "python", "max_batch_size": 4, **tensors, **changes}


def unload(client: TritonClient, model: str) -> None:
    """Unload a model, and wait until it is unloaded."""
    client.unload_model(model)
    deadline = time.monotonic() + 30
    while client.models()[model] not in {"", "UNAVAILABLE"}:
        assert time.monotonic() < deadline
        time.sleep(0.01)


class InferenceContract:
    """Inference over gRPC."""

    @pytest.fixture
    def stub(self, endpoints: dict[Protocol, Endpoint]) -> Iterator[service_pb2_grpc.GRPCInferenceServiceStub]:
        with grpc.insecure_channel(endpoints["grpc"].address) as channel:
            yield service_pb2_grpc.GRPCInferenceServiceStub(channel)

    def test_both_protocols_say_the_same(self, endpoints: dict[Protocol, Endpoint]) -> None:
        with TritonClient(endpoints["grpc"]) as one, TritonClient(endpoints["http"]) as other:
            assert one.server() == other.server()
            for model in LOADED:
                assert one.model_config(model) == other.model_config(model)
            assert one.statistics("identity") == other.statistics("identity")

    @pytest.mark.parametrize(
        ("changes", "code", "words"),
        [
            ({"model": "nobody"}, "NOT_FOUND", "^Request for unknown model: 'nobody' is not found$"),
            ({"version": "7"}, "NOT_FOUND", "^Request for unknown model: 'identity' version 7 is not found$"),
            ({"shape": [5, 4]}, "INVALID_ARGUMENT", "inference request batch-size must be <= 4 for 'identity'$"),
            ({"shape": [1, 5]}, "INVALID_ARGUMENT", _SHAPE.format("1,5")),
            ({"shape": [4]}, "INVALID_ARGUMENT", _SHAPE.format("4")),
            (
                {"datatype": "INT32"},
                "INVALID_ARGUMENT",
                "inference input 'IN' data-type is 'INT32', but model 'identity' expects 'FP32'$",
            ),
            ({"name": "IM"}, "INVALID_ARGUMENT", "^unexpected inference input 'IM' for model 'identity'$"),
            (
                {"content": b"1234"},
                "INVALID_ARGUMENT",
                "input byte size mismatch for input 'IN' for model 'identity'. Expected 16, got 4$",
            ),
            ({"outputs": ["NONE"]}, "INVALID_ARGUMENT", "^unexpected inference output 'NONE' for model 'identity'$"),
            ({"model": "decoupled"}, "UNIMPLEMENTED", "ModelInfer RPC doesn't support models with decoupled"),
            ({"model": "stateful"}, "INVALID_ARGUMENT", "must specify a non-zero or non-empty correlation ID$"),
            ({"model": "fails_requests"}, "INTERNAL", "the model says no$"),
        ],
    )
    def test_what_is_wrong_with_a_request(
        self, stub: service_pb2_grpc.GRPCInferenceServiceStub, changes: dict[str, Any], code: str, words: str
    ) -> None:
        with pytest.raises(grpc.RpcError, match=code) as caught:
            stub.ModelInfer(request_of(**changes), timeout=30)
        assert caught.value.code().name == code
        assert re.search(words, caught.value.details() or "")

    def test_an_input_that_is_missing(self, stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
        words = (
            r"expected 1 inputs but got 0 inputs for model 'identity'\. Got input\(s\) \[\], but missing .* \['IN'\]\."
        )
        with pytest.raises(grpc.RpcError, match=words):
            stub.ModelInfer(service_pb2.ModelInferRequest(model_name="identity"), timeout=30)

    def test_a_sequence_that_has_not_begun(self, stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
        request = request_of("stateful")
        request.parameters["sequence_id"].int64_param = 7
        words = "inference request for sequence 7 to model 'stateful' must specify the START flag on the first request"
        with pytest.raises(grpc.RpcError, match=words):
            stub.ModelInfer(request, timeout=30)

    @pytest.mark.parametrize("model", ["identity", "pipeline"])
    def test_an_answer(self, stub: service_pb2_grpc.GRPCInferenceServiceStub, model: str) -> None:
        request = request_of(model, shape=[2, 4])
        request.id = "mine"
        answer = stub.ModelInfer(request, timeout=30)
        assert (answer.model_name, answer.id) == (model, "mine")
        assert answer.model_version == ("12" if model == "identity" else "1")
        assert [output.name for output in answer.outputs] == ["OUT"]
        assert list(answer.outputs[0].shape) == [2, 4]
        assert answer.raw_output_contents == request.raw_input_contents

    def test_instances_answer_in_turn(self, stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
        answers = [stub.ModelInfer(request_of("instances"), timeout=30) for _ in range(12)]
        numbers = [np.frombuffer(answer.raw_output_contents[0], np.float32)[0] for answer in answers]
        assert set(numbers) == {0, 1, 2}

    def test_metadata(self, stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
        metadata = stub.ModelMetadata(service_pb2.ModelMetadataRequest(name="identity"), timeout=30)
        assert (metadata.platform, list(metadata.versions)) == ("python", ["1", "12"])
        assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in metadata.inputs] == [
            ("IN", "FP32", [-1, 4])
        ]

    @pytest.mark.parametrize("wants_empty", [False, True])
    def test_a_stream_of_responses(
        self,
        stub: service_pb2_grpc.GRPCInferenceServiceStub,
        wants_empty: bool,  # noqa: FBT001 (a parameter)
    ) -> None:
        # Two responses, the second an error, and an empty final response.
        request = request_of("decoupled", content=np.array([2, 1, 1, 0], np.float32).tobytes())
        request.id = "mine"
        if wants_empty:
            request.parameters["triton_enable_empty_final_response"].bool_param = True
        replies = [
            (
                reply.error_message,
                reply.infer_response.id,
                len(reply.infer_response.outputs),
                reply.infer_response.parameters["triton_final_response"].bool_param,
            )
            for reply in stub.ModelStreamInfer(iter([request]), timeout=30)
        ]
        expected = [("", "mine", 1, False), ("the model says no", "mine", 0, False)]
        assert replies == [*expected, ("", "mine", 0, True)][: 2 + wants_empty]

    def test_a_stream_to_nobody_goes_on(self, stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
        answers = list(stub.ModelStreamInfer(iter([request_of("nobody"), request_of()]), timeout=30))
        assert answers[0].error_message == "Request for unknown model: 'nobody' is not found"
        assert answers[1].infer_response.parameters["triton_final_response"].bool_param

    def test_shared_memory(self, stub: service_pb2_grpc.GRPCInferenceServiceStub, tmp_path: Path) -> None:
        name = f"tritontune-contract-{tmp_path.name}-{time.monotonic_ns()}"
        file = Path("/dev/shm") / name  # noqa: S108 (where the kernel has it)
        file.write_bytes(np.arange(16, dtype=np.float32).tobytes())
        register = service_pb2.SystemSharedMemoryRegisterRequest(name=name, key=f"/{name}", byte_size=64)
        try:
            stub.SystemSharedMemoryRegister(register, timeout=30)
            with pytest.raises(grpc.RpcError, match=f"shared memory region '{name}' already in manager"):
                stub.SystemSharedMemoryRegister(register, timeout=30)
            request = request_of()
            request.ClearField("raw_input_contents")
            output = request.outputs.add()
            output.name = "OUT"
            for tensor, offset in ((request.inputs[0], 16), (output, 32)):
                tensor.parameters["shared_memory_region"].string_param = name
                tensor.parameters["shared_memory_offset"].int64_param = offset
                tensor.parameters["shared_memory_byte_size"].int64_param = 16
            stub.ModelInfer(request, timeout=30)
            assert np.frombuffer(file.read_bytes(), np.float32)[8:12].tolist() == [4, 5, 6, 7]
            output.parameters["shared_memory_byte_size"].int64_param = 8
            with pytest.raises(grpc.RpcError, match=r"for output 'OUT' \(8 bytes\) should be at least 16 bytes"):
                stub.ModelInfer(request, timeout=30)
            request.inputs[0].parameters["shared_memory_byte_size"].int64_param = 80
            with pytest.raises(grpc.RpcError, match="Invalid offset"):
                stub.ModelInfer(request, timeout=30)
        finally:
            stub.SystemSharedMemoryUnregister(service_pb2.SystemSharedMemoryUnregisterRequest(name=name), timeout=30)
            file.unlink()

    def test_what_does_not_load_says_why(self, endpoints: dict[Protocol, Endpoint]) -> None:
        control = ModelControl(endpoints["grpc"])
        config = config_text().replace("KIND_CPU", "KIND_GPU")
        with pytest.raises(LaunchError, match="has kind KIND_GPU but no GPUs are available") as caught:
            control.load("slow", config, within_s=30, alive=lambda: None)
        assert caught.value.cause is Cause.INVALID_CONFIG
