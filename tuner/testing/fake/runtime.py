"""The server's clock, and what a test changes while the server runs."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tuner.testing.fake.timeline import Timeline

VERSION = "2.51.0"
"""Of the Triton that it takes after."""

VARIABLE = "TRITONTUNE_FAKE"
"""The environment variable that may hold a JSON object of the same keys as the control file."""

FILE = "fake.json"
"""The control file, beside the program."""


class Control:
    """What the whole server does on demand; the file is looked at again whenever it has changed.

    Keys: `speed` (how fast the machine is, as a factor; 1), `start_s` (how long the server takes before it begins),
    `fail_start` (it ends at once, with these words), `ignore_sigterm` (`true`), `stall` (`true`: nothing is answered
    until it is false again), `version` (that it tells).

    Args:
        path: The file, which need not be there.
        environment: Of the process.
    """

    def __init__(self, path: Path, environment: Mapping[str, str] = os.environ) -> None:
        self._path = path
        self._fixed: dict[str, Any] = json.loads(environment.get(VARIABLE) or "{}")
        self._seen: object = None
        self._values: dict[str, Any] = {}

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key."""
        if key in self._fixed:
            return self._fixed[key]
        try:
            state = self._path.stat()
        except OSError:
            return default
        seen = (state.st_mtime_ns, state.st_ino, state.st_size)
        if seen != self._seen:
            self._values = json.loads(self._path.read_text(encoding="utf-8") or "{}")
            self._seen = seen
        return self._values.get(key, default)


class Runtime:
    """What all models of a server share.

    Args:
        control: What it does on demand.
        backends: That there are; None: all that are known.
        caches: Whether it has a response cache.
    """

    def __init__(self, control: Control, *, backends: Collection[str] | None = None, caches: bool = False) -> None:
        self.control = control
        self.backends = backends
        self.caches = caches
        self._loop = asyncio.get_running_loop()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0
        self.timeline = Timeline(self._set_alarm)

    def now(self) -> float:
        """The time; whatever was due before has happened."""
        now = self._loop.time()
        self.timeline.run(now)
        return now

    def time(self) -> float:
        """The time, whatever is due."""
        return self._loop.time()

    def speed(self) -> float:
        """How fast the machine is."""
        return float(self.control.get("speed", 1.0))

    def _set_alarm(self, due: float) -> None:
        if self._alarm is not None:
            if self._alarm_at == due:
                return
            self._alarm.cancel()
        self._alarm_at = due
        self._alarm = self._loop.call_at(due, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self.timeline.run(self._loop.time())
