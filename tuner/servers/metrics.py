"""What a Triton tells of the machine that it runs on, at its metrics port."""

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
    """The machine of a server elsewhere. What it does not tell is not known: its cores, always.

    Args:
        endpoint: Of the server.
        metrics_url: Of its metrics; None: Triton's own port on the same host, if anybody is there.

    Raises:
        JobError: nothing of the kind is at `metrics_url`.
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
    """The GPUs that a Triton's metrics tell of, in Prometheus' text format.

    Raises:
        ValueError: it is none, or another server's.
    """
    if "nv_inference" not in text:
        raise ValueError("no metrics of a Triton there")
    families = text_string_to_metric_families(text)
    samples = [sample for family in families for sample in family.samples if sample.name == _GPU_MEMORY]
    return [
        Gpu(index, uuid=sample.labels.get("gpu_uuid", ""), name="GPU", memory_bytes=int(sample.value))
        for index, sample in enumerate(samples)
    ]
