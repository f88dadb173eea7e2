"""The machine of a remote Triton, from its metrics endpoint."""

from __future__ import annotations

import urllib3
from prometheus_client.parser import text_string_to_metric_families

from tuner.core.errors import JobError
from tuner.core.machine import Machine
from tuner.core.nvml import Gpu
from tuner.core.redaction import without_secrets
from tuner.options.endpoint import Endpoint

_PORT = 8002
_ASK_S = 2.0
_GPU_MEMORY = "nv_gpu_memory_total_bytes"


def machine_of(endpoint: Endpoint, metrics_url: str | None) -> Machine:
    """The machine of a remote server. Its cores are always unknown.

    Args:
        endpoint: The server's endpoint.
        metrics_url: The URL of its metrics; None: port 8002 of the same host, if it answers.

    Raises:
        JobError: `metrics_url` does not serve metrics of a Triton.
    """
    host = endpoint.address.rpartition(":")[0]
    url = metrics_url or f"http://{host}:{_PORT}/metrics"
    gpus: list[Gpu] = []
    if not url.startswith(("http://", "https://")):
        raise JobError(f"--metrics-url: {without_secrets(url)!r} is not a URL (example: http://HOST:8002/metrics)")
    try:
        gpus = gpus_of(urllib3.request("GET", url, timeout=_ASK_S, retries=False).data.decode())
    except urllib3.exceptions.HTTPError as error:
        if metrics_url:
            raise JobError(f"--metrics-url: no answer from {without_secrets(url)}") from error
    except ValueError as error:
        if metrics_url:
            raise JobError(f"--metrics-url: {without_secrets(url)}: {error}") from error
    return Machine(cpus=None, gpus=tuple(gpus), processor="")


def gpus_of(text: str) -> list[Gpu]:
    """The GPUs in a Triton's metrics, which are in Prometheus' text format.

    Raises:
        ValueError: the text is not in that format, or from another server.
    """
    if "nv_inference" not in text:
        raise ValueError("no metrics of a Triton there")
    families = text_string_to_metric_families(text)
    samples = [sample for family in families for sample in family.samples if sample.name == _GPU_MEMORY]
    return [
        Gpu(index, uuid=sample.labels.get("gpu_uuid", ""), name="GPU", memory_bytes=int(sample.value))
        for index, sample in enumerate(samples)
    ]
