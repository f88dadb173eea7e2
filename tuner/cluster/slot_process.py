"""A slot of this machine, in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from typing_extensions import Self

from tuner.cluster.slot_context import SlotRecipe
from tuner.cluster.slot_locks import SlotLock, lock_slot
from tuner.cluster.slot_worker import (
    GRACE_S,
    Ended,
    Failed,
    LevelBegan,
    Noted,
    Opened,
    Opening,
    Order,
    PointMeasured,
    Pulled,
)
from tuner.cluster.slots import Slot
from tuner.core.errors import HostLostError, TritontuneError, TuningError, shortened
from tuner.core.proc import describe_exit
from tuner.load.worker_channel import Channel
from tuner.measure.work import UNHEARD, Outcome, TrialProgress, Work
from tuner.options.tune_job import TuneJob
from tuner.servers.docker.launcher import engine_problem, remove_docker_leftovers
from tuner.servers.docker.pull import SeePull
from tuner.servers.process import remove_process_leftovers
from tuner.servers.work_folder import remove_abandoned_work

_MAIN = "import sys; sys.path[:] = {path!r}; from tuner.cluster.slot_worker import main; main()"
# Without a sign of life for so long, the process is lost: it is stopped, or its machine is.
_SILENCE_S = 30.0
_KILLED_S = 5.0
_Message = TypeVar("_Message")


class _RemoteTraceError(Exception):
    """The traceback of an error in the process of a slot, as its cause."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class SlotProcess:
    """The owner's side of the process of a slot, which opens the slot once, and does one piece of work at a time.

    The process ends with its owner, and stops its server before.
    """

    def __init__(self, recipe: SlotRecipe, slot: Slot, lock: SlotLock, note: Callable[[str], None]) -> None:
        self.slot = slot
        self._job = recipe.job
        self._lock = lock
        self._note = note
        self._see_pull: SeePull = lambda _pull: None
        self._opened: Opened | None = None
        self._closing = threading.Lock()
        self._closed = False
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        ours, theirs = socket.socketpair()
        ours.settimeout(_SILENCE_S)
        self._channel = Channel(ours)
        descriptors = [theirs.fileno(), *lock.descriptors]
        command = [sys.executable, "-I", "-c", _MAIN.format(path=sys.path), *map(str, descriptors)]
        try:
            self._process = subprocess.Popen(  # noqa: S603 (our own Python)
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._words,
                stderr=self._words,
                pass_fds=descriptors,
                start_new_session=True,
            )
        except OSError as error:
            self._channel.close()
            self._words.close()
            lock.close()
            raise TuningError(f"{slot.name}: its process cannot be started: {error.strerror}") from None
        finally:
            theirs.close()

    @classmethod
    def start(
        cls,
        recipe: SlotRecipe,
        slot: Slot,
        *,
        note: Callable[[str], None],
        see_pull: SeePull = lambda _pull: None,
        environment: Mapping[str, str | None] | None = None,
        lock: SlotLock | None = None,
    ) -> Self:
        """Start the process, which begins to open the slot.

        Args:
            recipe: What to launch.
            slot: The slot, of this machine.
            note: Takes messages for the user, in the thread that calls `opened` or `run`.
            see_pull: Called with the progress of pulling the image, in the same thread.
            environment: Variables for the process; None removes one. They may be secret.
            lock: The lock of the slot, if it is held already; released with the process.

        Raises:
            SlotInUseError: another process uses the slot.
            TuningError: the process cannot be started.
        """
        started = cls(recipe, slot, lock or lock_slot(slot), note)
        started._see_pull = see_pull
        try:
            started._send(Opening(recipe, slot, environment or {}))
        except BaseException:
            started.close(grace_s=0)
            raise
        return started

    @property
    def pid(self) -> int:
        """The pid of the process."""
        return self._process.pid

    @property
    def lives(self) -> bool:
        """Whether it can do work."""
        return not self._closed and self._process.poll() is None

    def opened(self) -> Opened:
        """Wait until the slot is open.

        Raises:
            HostLostError: the process has ended.
            UsageError, TuningError: see `open_slot`.
        """
        if self._opened is None:
            self._opened = self._await(Opened, UNHEARD)
        return self._opened

    def run(self, work: Work, folder: Path, progress: TrialProgress) -> Outcome:
        """Carry out a piece of work, while no other is under way.

        Args:
            work: The work.
            folder: The folder on this machine for its files.
            progress: Called with each load level, in this thread.

        Raises:
            HostLostError: the process has ended, or gives no sign of life; then nothing of it is left.
            UsageError, TuningError: see `carry_out`.
        """
        self.opened()
        self._send(Order(work, folder.absolute()))
        return self._await(Ended, progress).outcome

    def interrupt(self) -> None:
        """Begin to end the process, and what it does; `close` waits for it. From any thread."""
        self._process.terminate()

    def close(self, *, grace_s: float = GRACE_S) -> None:
        """End the process; may be repeated, and from any thread. Work under way is lost.

        Args:
            grace_s: Seconds until it is killed.
        """
        with self._closing:
            if self._closed:
                return
            self._closed = True
            try:
                self._end(grace_s)
            finally:
                self._channel.close()
                self._words.close()
                self._lock.close()

    def _end(self, grace_s: float) -> None:
        with suppress(subprocess.TimeoutExpired):
            if grace_s > 0:
                self._process.terminate()
            self._process.wait(grace_s)
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_KILLED_S)
        if self._process.returncode != 0:
            _remove_leftovers(self._job)

    def _send(self, message: object) -> None:
        try:
            self._channel.send(message)
        except OSError:
            raise self._lost() from None

    def _await(self, kind: type[_Message], progress: TrialProgress) -> _Message:
        """The next message of a kind; passes on what comes before."""
        while True:
            message = self._received()
            if isinstance(message, kind):
                return message
            if isinstance(message, Failed):
                raise message.error from _RemoteTraceError(message.trace)
            self._pass_on(message, progress)

    def _received(self) -> object:
        try:
            message, _ = self._channel.receive()
        except TimeoutError:
            raise self._lost(f"gave no sign of life for {_SILENCE_S:g} s") from None
        except (EOFError, OSError):
            raise self._lost() from None
        return message

    def _pass_on(self, message: object, progress: TrialProgress) -> None:
        try:
            if isinstance(message, Noted):
                self._note(message.text)
            elif isinstance(message, Pulled):
                self._see_pull(message.pull)
            elif isinstance(message, LevelBegan):
                progress.level_began(message.load)
            elif isinstance(message, PointMeasured):
                progress.point_measured(message.point)
        except BaseException:
            # Its work would be taken for the next one.
            self.close(grace_s=0)
            raise

    def _lost(self, reason: str = "") -> HostLostError:
        """End what is left of the process. Returns why it was lost."""
        if self._closed:
            return HostLostError(f"{self.slot.name}: was closed")
        if not reason:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_KILLED_S)
            code = self._process.poll()
            reason = "closed its channel" if code is None else describe_exit(code)
        words = self._last_words()
        self.close(grace_s=0)
        return HostLostError(f"{self.slot.name}: its process {reason}{f': {words}' if words else ''}")

    def _last_words(self) -> str:
        """The last line that it wrote, as of a crash in native code."""
        self._words.seek(0)
        lines = self._words.read().decode(errors="replace").strip().splitlines()
        return shortened(lines[-1]) if lines else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _remove_leftovers(job: TuneJob) -> None:
    """Remove what a killed process has left: servers, containers and folders of owners that are gone."""
    with suppress(TritontuneError):
        remove_process_leftovers()
        remove_abandoned_work()
        if job.server != "process" and job.triton_path is None and engine_problem(None) is None:
            remove_docker_leftovers()
