"""Watches a container: copies its output to a file, and detects its end at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from docker.errors import NotFound
from docker.models.containers import Container

from tuner.servers.docker.engine import ENGINE_ERRORS, explain
from tuner.servers.server import End

# The output ends a moment before the engine reports that the container has ended.
_FIRST_LOOK_S = 0.01
_SLOWEST_LOOK_S = 1.0


class ContainerWatch:
    """Copies the output of a running container to a file until it ends, then reports how it ended.

    Its thread ends when the container ends or is removed, or when the engine ends.
    """

    def __init__(self, container: Container, log: Path) -> None:
        self._container = container
        log.parent.mkdir(parents=True, exist_ok=True)
        self._end: End | None = None
        self._thread = threading.Thread(
            target=self._run, args=(log.open("wb", buffering=0),), name=f"watch {container.name}", daemon=True
        )
        self._thread.start()

    @property
    def end(self) -> End | None:
        """How the container ended, after all of its output is in the file; None while it runs."""
        return self._end

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the container."""
        self._thread.join(timeout_s)

    def _run(self, log: FileIO) -> None:
        end = End("can no longer be watched")
        try:
            with log:
                self._copy_output(log)
            end = self._await_end()
        except NotFound:
            end = End("was removed")
        except ENGINE_ERRORS as error:
            end = End(f"can no longer be watched: {explain(error)}")
        finally:
            self._end = self._end or end

    def _copy_output(self, log: FileIO) -> None:
        output = self._container.logs(stream=True, follow=True)
        try:
            for piece in output:
                log.write(piece)
        except OSError as error:
            if isinstance(error, ENGINE_ERRORS):
                raise
            self._end = End(f"can no longer be watched: {log.name} cannot be written: {error.strerror}")
            for _ in output:
                pass  # Read on, as an unread stream would keep its socket open; the server is stopped anyway.

    def _await_end(self) -> End:
        pause_s = _FIRST_LOOK_S
        self._container.reload()
        while self._container.attrs["State"]["Running"]:
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _SLOWEST_LOOK_S)
            self._container.reload()
        return _end_of(self._container.attrs["State"])


def _end_of(state: Mapping[str, Any]) -> End:
    """How a container ended, from `State` of `docker inspect`."""
    code = state["ExitCode"]
    # Like a shell, the engine reports 128 plus the number of a signal.
    return End.by(128 - code if code > 128 else code, out_of_memory=state["OOMKilled"])
