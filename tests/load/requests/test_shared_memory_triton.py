from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import urllib3
from support.services import ON_BOTH, Services, TritonService

from tuner.config.interface import ModelInterface
from tuner.core.errors import JobError, ServerDiedError
from tuner.core.mark import Mark
from tuner.load.inputs.made_up import make_inputs
from tuner.load.inputs.tensors import Stream
from tuner.load.requests.build import RequestOptions
from tuner.load.requests.registries import CudaRegion, SystemRegion, open_registry
from tuner.load.requests.shared_memory import shared_workload
from tuner.load.workload import Request
from tuner.options.endpoint import Endpoint, Protocol
from tuner.servers.client import TritonClient

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (where the kernel has it)
PROTOCOLS: tuple[Protocol, ...] = ("grpc", "http")


class Service:
    """A Triton with a model that hands back what it gets, over gRPC and HTTP."""

    def __init__(self, service: TritonService) -> None:
        self.model = service.model
        self.kill = service.kill
        self.endpoints: dict[Protocol, Endpoint] = {"grpc": service.grpc, "http": service.http}
        with TritonClient(service.grpc) as client:
            self.interface = ModelInterface.of(client.model_config(service.model))

    def infer(self, protocol: Protocol, request: Request) -> list[dict[str, Any]]:
        """The outputs as they are described in the answer."""
        if protocol == "http":
            url = f"http://{self.endpoints['http'].address}/v2/models/{self.model}/infer"
            headers = {"Inference-Header-Content-Length": str(request.json_length)}
            reply = urllib3.request("POST", url, body=request.body, headers=headers)
            assert reply.status == 200, reply.data
            outputs: list[dict[str, Any]] = json.loads(reply.data)["outputs"]
            return outputs
        with grpc.insecure_channel(self.endpoints["grpc"].address) as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer"
            )
            answer = triton.service_pb2.ModelInferResponse.FromString(call(request.body, timeout=10))
        assert not b"".join(answer.raw_output_contents)
        return [{"name": output.name, "shape": list(output.shape)} for output in answer.outputs]

    def regions(self) -> set[str]:
        """The names of the system shared memory that it knows."""
        with closing(triton.InferenceServerClient(self.endpoints["grpc"].address)) as client:
            return set(client.get_system_shared_memory_status().regions)


@pytest.fixture
def service(services: Services) -> Service:
    return Service(services("echo"))


@pytest.fixture(autouse=True)
def _nothing_is_left(service: Service) -> Iterator[None]:
    yield
    files = [*SHARED_MEMORY.glob("*-inputs"), *SHARED_MEMORY.glob("*-outputs")]
    assert not [file for file in files if (mark := Mark.of(file.name)) and mark.pid == os.getpid()]
    assert service.regions() == set()


def steps(service: Service, pool: int, batch_size: int = 1) -> Stream:
    return make_inputs(service.interface, shapes={}, pool=pool, seed=0, batch_size=batch_size)


@ON_BOTH
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("batch_size", [1, 5])
def test_inputs_are_read_and_outputs_written_where_the_request_says(
    service: Service, protocol: Protocol, batch_size: int
) -> None:
    stream = steps(service, 3, batch_size)
    options = RequestOptions(batch_size=batch_size)
    with (
        closing(open_registry(service.endpoints[protocol])) as registry,
        shared_workload(service.interface, [stream], options, protocol, registry) as workload,
    ):
        inputs, outputs = sorted(service.regions())
        assert (inputs.rpartition("-")[2], outputs.rpartition("-")[2]) == ("inputs", "outputs")
        # A request says nothing of its values, whatever their size.
        assert all(len(request.body) < 600 for request in workload.requests)
        for request in reversed(workload.requests):
            (output,) = service.infer(protocol, request)
            assert (output["name"], output["shape"]) == ("OUT", [batch_size, 4])
        written = np.fromfile(SHARED_MEMORY / outputs, np.float32).reshape(3, -1)[:, : batch_size * 4]
        assert written.tobytes() == b"".join(step.inputs[0].raw() for step in stream)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_two_workloads_do_not_disturb_each_other(service: Service, protocol: Protocol) -> None:
    stream = steps(service, 1)
    with closing(open_registry(service.endpoints[protocol])) as registry:
        with (
            shared_workload(service.interface, [stream], RequestOptions(), protocol, registry) as first,
            shared_workload(service.interface, [stream], RequestOptions(), protocol, registry) as second,
        ):
            assert len(service.regions()) == 4
            service.infer(protocol, first.requests[0])
            service.infer(protocol, second.requests[0])
        assert service.regions() == set()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_is_left_after_an_error(service: Service, protocol: Protocol) -> None:
    with (
        closing(open_registry(service.endpoints[protocol])) as registry,
        pytest.raises(KeyboardInterrupt),
        shared_workload(service.interface, [steps(service, 1)], RequestOptions(), protocol, registry),
    ):
        raise KeyboardInterrupt


@ON_BOTH
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_region_that_the_server_cannot_open_is_refused_in_one_line(service: Service, protocol: Protocol) -> None:
    endpoint = service.endpoints[protocol]
    region = SystemRegion("elsewhere", 64, "/tritontune-elsewhere")
    with closing(open_registry(endpoint)) as registry, pytest.raises(JobError) as raised:
        registry.register(region)
    message = str(raised.value)
    assert message.startswith(f"--shared-memory system: {endpoint.address} refused it (Unable to open shared memory")
    assert message.endswith("; the server must run on this machine and share its /dev/shm (in a container: --ipc=host)")
    assert "\n" not in message


@ON_BOTH
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_memory_of_a_gpu_that_is_not_there_is_refused_in_one_line(service: Service, protocol: Protocol) -> None:
    endpoint = service.endpoints[protocol]
    with closing(open_registry(endpoint)) as registry, pytest.raises(JobError) as raised:
        registry.register(CudaRegion("gpu", 64, b"h" * 64, 0))
    message = str(raised.value)
    assert message.startswith(f"--shared-memory cuda: {endpoint.address} refused it (")
    assert message.endswith("); the server must run on this machine and see GPU 0")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_region_that_the_server_does_not_know_is_forgotten_at_once(service: Service, protocol: Protocol) -> None:
    with closing(open_registry(service.endpoints[protocol])) as registry:
        registry.unregister(SystemRegion("elsewhere", 64, "/tritontune-elsewhere"))
        registry.unregister(CudaRegion("elsewhere", 64, b"", 0))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_is_killed_meanwhile_leaves_nothing(services: Services, protocol: Protocol) -> None:
    doomed = Service(services("doomed"))
    with (
        closing(open_registry(doomed.endpoints[protocol])) as registry,
        shared_workload(doomed.interface, [steps(doomed, 1)], RequestOptions(), protocol, registry),
    ):
        doomed.kill()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_is_not_there_has_died(protocol: Protocol) -> None:
    registry = open_registry(Endpoint("127.0.0.1:9", protocol))
    with closing(registry), pytest.raises(ServerDiedError, match="^no Triton answers at 127.0.0.1:9"):
        registry.register(SystemRegion("x", 64, "/x"))
