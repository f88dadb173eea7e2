"""Removes what an engine does not let go of at once."""

from __future__ import annotations

import time
from collections.abc import Callable

from docker.errors import APIError, NotFound

from tuner.servers.docker.engine import engine_trouble

# Of a container that is being removed already, or whose device is still busy, the engine refuses the removal.
_REMOVAL_S = 20.0
_REMOVAL_EVERY_S = 0.05


def remove_for_certain(remove: Callable[[], None]) -> None:
    """Call it until the engine has done it, or says that there is nothing to remove.

    Raises:
        TuningError: the engine does not do it.
    """
    deadline = time.monotonic() + _REMOVAL_S
    with engine_trouble():
        while True:
            try:
                remove()
            except NotFound:
                return
            except APIError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_REMOVAL_EVERY_S)
            else:
                return
