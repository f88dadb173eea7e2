"""The GPUs that a server may use, in a container or as a process: `all`, `none`, or a list of indices and UUIDs."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tuner.core.errors import JobError
from tuner.core.nvml import Gpu

ALL = "all"
NONE = "none"

VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
CONTAINER_DEVICES = "NVIDIA_VISIBLE_DEVICES"
"""The variable by which NVIDIA's container runtime assigns GPUs, if there is no device request."""
# By default CUDA numbers the fastest GPU first, but nvidia-smi and Docker number by the bus.
_IN_ORDER_OF_THE_BUS = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}

_NAME = re.compile(r"\d+|GPU-[0-9A-Fa-f-]+|MIG-[0-9A-Za-z/-]+")


def parse_gpus(value: Any) -> str:
    """Read `all`, `none`, or a list such as `0,1`, `GPU-UUID`, `MIG-UUID`, also as a list of YAML.

    Raises:
        ValueError: the text is wrong; the message is one line with the fix.
    """
    names = [str(name).strip() for name in (value if isinstance(value, (list, tuple)) else str(value).split(","))]
    if len(names) == 1 and names[0].lower() in {ALL, NONE}:
        return names[0].lower()
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} is not a GPU; write all, none, or indices and UUIDs such as 0,1 or GPU-... or MIG-..."
            )
        if names.count(name) > 1:
            raise ValueError(f"{name!r} is given twice")
    return ",".join(names)


def gpus_of_runtime(variables: Mapping[str, str]) -> str | None:
    """The GPUs that a container's variables request from NVIDIA's runtime; None: no request.

    A device request overrides these variables, so tritontune turns them into a device request.

    Raises:
        JobError: `parse_gpus` cannot read it.
    """
    requested = variables.get(CONTAINER_DEVICES)
    if requested is None:
        return None
    if requested.strip() in {"", "void", NONE}:
        return NONE
    try:
        return parse_gpus(requested)
    except ValueError as error:
        raise JobError(f"--env {CONTAINER_DEVICES}: {error}") from None


def shown_by_cuda(given: str, variables: Mapping[str, str]) -> str:
    """The GPUs of this machine that the programs of a server see.

    Args:
        given: GPUs of its process or container: `all`, `none`, or names. A container numbers them by the bus.
        variables: Its environment. CUDA selects among the given GPUs, and stops at the first invalid name.
    """
    wanted = variables.get(VISIBLE_DEVICES)
    if wanted is None or given == NONE:
        return given
    names = [name.strip() for name in wanted.split(",")]
    if given == ALL:
        # CUDA does not understand `all`.
        return NONE if names[0] in {"", ALL} else wanted
    devices = sorted(given.split(","), key=lambda name: int(name) if name.isdecimal() else -1)
    visible: list[str] = []
    for name in names:
        matching = devices[int(name) :][:1] if name.isdecimal() else [d for d in devices if d.startswith(name)]
        if not name or not matching:
            break
        visible += matching
    return ",".join(visible) or NONE


def process_environment(gpus: str | None, here: Sequence[Gpu]) -> Mapping[str, str]:
    """The variables that limit a process to these GPUs.

    Args:
        gpus: `all`, `none`, or names; None: no variables are set, so that our own environment decides.
        here: The GPUs of this machine, in NVML's order.

    Raises:
        JobError: this machine does not have them.
    """
    if gpus is None:
        return {}
    if gpus == NONE:
        return {VISIBLE_DEVICES: ""}
    if not here:
        raise JobError(f"--gpus {gpus}: this machine has no GPU (NVML finds none); omit it, or use --gpus none")
    if gpus == ALL:
        narrowed = VISIBLE_DEVICES in os.environ
        return {VISIBLE_DEVICES: ",".join(map(str, range(len(here)))), **_IN_ORDER_OF_THE_BUS} if narrowed else {}
    for name in gpus.split(","):
        if not _is_here(name, here):
            there_are = ", ".join(f"{index} ({gpu.name}, {gpu.uuid})" for index, gpu in enumerate(here))
            raise JobError(f"--gpus: this machine has no GPU {name}; it has {there_are}")
    return {VISIBLE_DEVICES: gpus, **_IN_ORDER_OF_THE_BUS}


def _is_here(name: str, here: Sequence[Gpu]) -> bool:
    if name.startswith("MIG-"):
        return True  # CUDA checks the instances of a GPU.
    return int(name) < len(here) if name.isdecimal() else any(gpu.uuid.startswith(name) for gpu in here)
