from __future__ import annotations

import pytest
from support.web_peer import Reply, WebPeer

from tuner.core.errors import JobError
from tuner.core.nvml import Gpu
from tuner.options.endpoint import Endpoint
from tuner.servers.metrics import machine_of

# As a Triton with two GPUs writes it.
TEXT = """\
# HELP nv_inference_request_success Number of successful inference requests, all batch sizes
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="mlp",version="1"} 0
# HELP nv_gpu_memory_total_bytes GPU total memory, in bytes
# TYPE nv_gpu_memory_total_bytes gauge
nv_gpu_memory_total_bytes{gpu_uuid="GPU-1"} 85899345920
nv_gpu_memory_total_bytes{gpu_uuid="GPU-2"} 25757220864
"""
ELSEWHERE = Endpoint("127.0.0.1:8001")


def told(text: str) -> tuple[Gpu, ...]:
    with WebPeer(lambda _: Reply(body=text.encode())) as peer:
        return machine_of(ELSEWHERE, f"http://{peer.address}/metrics").gpus


def test_the_gpus_of_a_server_elsewhere() -> None:
    assert told(TEXT) == (Gpu(0, "GPU-1", "GPU", 80 * 2**30), Gpu(1, "GPU-2", "GPU", 25757220864))


def test_a_server_without_gpus() -> None:
    assert told(TEXT.partition("# HELP nv_gpu")[0]) == ()


@pytest.mark.parametrize("text", ["", "<html>", "process_cpu_seconds_total 7\n", "nv_inference{ 7"])
def test_what_is_no_metrics_of_a_triton_is_said_so(text: str) -> None:
    with pytest.raises(JobError, match=r"--metrics-url: http://127.0.0.1:\d+/metrics: "):
        told(text)


def test_where_nobody_was_named_nobody_need_be_there() -> None:
    machine = machine_of(ELSEWHERE, None)
    assert (machine.cpus, machine.gpus) == (None, ())
    assert str(machine) == "an unknown number of CPU cores, no GPU"
    with pytest.raises(JobError, match="--metrics-url: no answer from http://127.0.0.1:1/$"):
        machine_of(ELSEWHERE, "http://127.0.0.1:1/")


def test_what_is_no_url_is_told() -> None:
    with pytest.raises(JobError, match="--metrics-url: 'foo' is not a URL"):
        machine_of(ELSEWHERE, "foo")


def test_a_redirect_of_the_metrics_is_not_followed() -> None:
    with WebPeer(lambda _: Reply(body=b"nv_inference_count 1")) as elsewhere:
        location = {"Location": f"http://{elsewhere.address}/metrics"}
        with (
            WebPeer(lambda _: Reply(302, headers=location)) as peer,
            pytest.raises(JobError, match="no metrics of a Triton there"),
        ):
            machine_of(Endpoint.parse(peer.address), f"http://{peer.address}/metrics")
        assert not elsewhere.asked
