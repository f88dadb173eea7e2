"""Removes containers and volumes that the engine may refuse to remove at first."""

from __future__ import annotations

import time
from collections.abc import Callable

from docker.errors import APIError, NotFound

from tuner.servers.docker.engine import engine_trouble

# In s. The engine refuses while the container is being removed already, or its device is busy.
_REMOVAL_S = 20.0
_REMOVAL_EVERY_S = 0.05


def remove_for_certain(remove: Callable[[], None]) -> None:
    """Call `remove` until the engine has removed it, or reports that it does not exist.

    Raises:
        TuningError: the engine still refuses after 20 s.
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
