"""What the engine says when it does not start a container, and what to do about it."""

from __future__ import annotations

import re

from docker.errors import APIError

from tuner.core.errors import Cause, JobError, LaunchError, TritontuneError
from tuner.servers.docker.engine import explain

# As the engine says it up to 28 without a runtime hook, from 29 on without a CDI specification, and a runtime without
# a driver.
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


class RefusedError(LaunchError):
    """The engine does not create or start a container as it was asked."""


class NotTritonError(RefusedError):
    """The image holds no Triton."""


def refusal(error: APIError, *, gpus: str | None) -> TritontuneError:
    """The error to raise for what the engine refused to create or to start.

    Args:
        error: As docker-py raised it.
        gpus: What was asked for.
    """
    reason = explain(error)
    if gpus and _NO_GPU_RUNTIME.search(reason):
        return NoGpuRuntimeError(
            f"--gpus {gpus}: Docker cannot give GPUs to containers here: install nvidia-container-toolkit, run "
            f"`nvidia-ctk runtime configure --runtime=docker`, and restart Docker; or say --gpus none ({reason})"
        )
    if gpus and _NO_SUCH_GPU.search(reason):
        return JobError(f"--gpus {gpus}: this machine has no such GPU ({reason})")
    if _NO_TRITON.search(reason):
        return NotTritonError(f"Docker starts no container: {reason}", cause=Cause.CRASHED)
    return RefusedError(f"Docker starts no container: {reason}", cause=Cause.CRASHED)
