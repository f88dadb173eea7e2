"""The environment of a host, as its user gave it to `ray start`."""

from __future__ import annotations

import os
from collections.abc import Mapping

import psutil

from tuner.cluster.slots import Slot
from tuner.options.gpus import VISIBLE_DEVICES

_OF_RAY = "RAY_"
# Ray sets it in each worker, to the number of its CPUs.
_THREADS = "OMP_NUM_THREADS"


def environment_of_raylet() -> Mapping[str, str]:
    """The variables of the process that started this worker of Ray."""
    try:
        parent = psutil.Process(os.getppid())
        if parent.name() == "raylet":
            return parent.environ()
    except psutil.Error:
        pass
    return {name: value for name, value in os.environ.items() if name != _THREADS}


def changes_for(slot: Slot) -> dict[str, str | None]:
    """What to change in this worker's environment for the programs of a slot; None removes a variable.

    They get the user's variables. Ray's own hold its token, and would limit Triton to one thread.
    """
    given = {name: value for name, value in environment_of_raylet().items() if not name.startswith(_OF_RAY)}
    if slot.gpus:
        given.pop(VISIBLE_DEVICES, None)  # the slot's are chosen among all that NVML knows
    return {**dict.fromkeys(os.environ), **given}
