"""The engine's reasons for not starting a container, as errors with a fix."""

from __future__ import annotations

import re

from docker.errors import APIError

from tuner.core.errors import Cause, JobError, LaunchError, TritontuneError
from tuner.servers.docker.engine import explain

# Docker up to 28 without a runtime hook; from 29 on without a CDI specification; or a runtime without a driver.
_NO_GPU_RUNTIME = re.compile(
    r"could not select device driver|discover GPU vendor from CDI|unresolvable CDI devices nvidia.com/gpu=all"
    r"|nvidia-container-cli: initialization error|nvml error|libnvidia-ml\.so"
)
_NO_SUCH_GPU = re.compile(
    r"unknown device|unresolvable CDI devices|device error: .*(?:invalid|not found)", re.IGNORECASE
)
_NO_TRITON = re.compile(r'"tritonserver": (?:executable file not found|stat )')


class NoGpuRuntimeError(JobError):
    """The engine cannot give GPUs to containers."""


class ContainerRefusedError(LaunchError):
    """The engine refuses to create or start a container."""


class NotTritonError(ContainerRefusedError):
    """The image has no Triton."""


def refusal(error: APIError, *, gpus: str | None) -> TritontuneError:
    """The error to raise when the engine refused to create or start a container.

    Args:
        error: The error of docker-py.
        gpus: The GPUs that were requested, if any.
    """
    reason = explain(error)
    if gpus and _NO_GPU_RUNTIME.search(reason):
        return NoGpuRuntimeError(
            f"--gpus {gpus}: Docker cannot give GPUs to containers here: install nvidia-container-toolkit, run "
            f"`nvidia-ctk runtime configure --runtime=docker`, and restart Docker; or use --gpus none ({reason})"
        )
    if gpus and _NO_SUCH_GPU.search(reason):
        return JobError(f"--gpus {gpus}: no such GPU on this machine ({reason})")
    if _NO_TRITON.search(reason):
        return NotTritonError(f"Docker cannot start the container: {reason}", cause=Cause.CRASHED)
    return ContainerRefusedError(f"Docker cannot start the container: {reason}", cause=Cause.CRASHED)
