"""A Triton whose answers come from the response cache, so that the client is the limit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tuner.config.interface import ModelInterface
from tuner.load.inputs.made_up import make_inputs
from tuner.load.requests.build import RequestOptions, build_workload
from tuner.load.workload import Plan
from tuner.options.endpoint import Endpoint
from tuner.servers.client import TritonClient
from tuner.servers.installation import find_triton
from tuner.servers.process import ProcessLauncher
from tuner.servers.protocols import Launch

_MODEL = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", values)]) for values in inputs]
"""
_CONFIG = """
backend: "python"
max_batch_size: 8
input [ {{ name: "IN" data_type: TYPE_FP32 dims: [ {length} ] }} ]
output [ {{ name: "OUT" data_type: TYPE_FP32 dims: [ {length} ] }} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
response_cache {{ enable: true }}
"""
_CACHE = "--cache-config=local,size=268435456"
_REQUEST_POOL = 16
_TIMEOUT_S = 10.0


@contextmanager
def cached_server(folder: Path, lengths: Mapping[str, int]) -> Iterator[str]:
    """The gRPC address of a server with identity models.

    Args:
        folder: For its files.
        lengths: Of the inputs, in FP32, by model.
    """
    repository = folder / "models"
    for name, length in lengths.items():
        version = repository / name / "1"
        version.mkdir(parents=True)
        (version / "model.py").write_text(_MODEL)
        (repository / name / "config.pbtxt").write_text(_CONFIG.format(length=length))
    first, *others = lengths
    launcher = ProcessLauncher(find_triton(), (_CACHE, *(f"--load-model={name}" for name in others)))
    with launcher.launch(Launch(repository, first, folder / "log", 60.0)) as server:
        yield server.endpoint.address


def plan_for(address: str, model: str) -> Plan:
    """Different requests to one of its models, for our own framing."""
    endpoint = Endpoint(address)
    with TritonClient(endpoint) as client:
        interface = ModelInterface.of(client.model_config(model))
    streams = (make_inputs(interface, shapes={}, pool=_REQUEST_POOL, seed=0),)
    return Plan("wire", endpoint, build_workload(interface, streams, RequestOptions(), "grpc"), _TIMEOUT_S)
