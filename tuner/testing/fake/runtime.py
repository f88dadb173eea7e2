"""The server's clock, and the control file, by which tests change its behaviour while it runs."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tuner.testing.fake.timeline import Timeline

VERSION = "2.51.0"
"""The version of the Triton that the fake imitates."""

VARIABLE = "TRITONTUNE_FAKE"
"""The environment variable that may hold a JSON object of the same keys as the control file."""

FILE = "fake.json"
"""The control file, beside the program."""


class Control:
    """The behaviour of the whole server, from a file that is read again whenever it changes.

    Keys: `speed` (speed of the machine, as a factor; 1), `start_s` (start-up time in s), `fail_start` (the server ends
    at once, with this message), `ignore_sigterm` (`true`), `stall` (`true`: no responses until it is false again),
    `version` (the Triton version to report).

    Args:
        path: The file, which may be missing.
        environment: The environment of the process.
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
    """The clock and the settings that all models of a server share.

    Args:
        control: The control file.
        backends: The installed backends; None: all known ones.
        caches: Whether the server has a response cache.
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
        """Run all due events, and return the time in s."""
        now = self._loop.time()
        self.timeline.run(now)
        return now

    def time(self) -> float:
        """The time, in s, without running due events."""
        return self._loop.time()

    def speed(self) -> float:
        """The speed of the machine, as a factor."""
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
