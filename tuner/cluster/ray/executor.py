"""Carries out work on the hosts of a Ray cluster."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from typing_extensions import Self

from tuner.cluster.host_changes import HostChange
from tuner.cluster.once import Once
from tuner.cluster.ray.launch_files import write_files
from tuner.cluster.ray.messages import (
    Changed,
    Close,
    Connected,
    Done,
    Drain,
    Failed,
    Joined,
    Lost,
    Note,
    Patience,
    Progress,
    Ready,
    Run,
    Start,
)
from tuner.cluster.ray.security import address_of, check_reachable, why_not_connected, why_open
from tuner.cluster.slot_context import SlotRecipe
from tuner.cluster.slots import Host, HostFacts, Slot
from tuner.core.errors import HostLostError, JobError, TuningError
from tuner.measure.work import Outcome, TrialProgress, Work
from tuner.options.environment import resolved
from tuner.options.gpus import ALL, NONE
from tuner.options.groups import MADE_UP
from tuner.options.placement import AUTO

_MAIN = "import sys; sys.path[:] = {path!r}; from tuner.cluster.ray.driver import main; main(int(sys.argv[1]))"
_LOOK_S = 0.2


@dataclass
class _UnderWay:
    """A piece of work under way."""

    slot: str
    folder: Path
    progress: TrialProgress
    future: Future[Outcome]
    # Calls `progress`, which may take its time, and then ends the future.
    thread: ThreadPoolExecutor


class RayExecutor:
    """An `Executor` on a Ray cluster. Entering the context connects to it, and waits for the first hosts.

    Args:
        recipe: What slots are opened by; its job says which cluster, and how many slots.
        note: Takes messages for the user, from any thread.
        tell: Called with what happens to a host, from any thread; None: `note` takes it in words.
        patience: Time limits.

    Raises:
        JobError: Ray is not installed, or the cluster cannot be used as asked.
        TuningError: no host can be used.
    """

    def __init__(
        self,
        recipe: SlotRecipe,
        *,
        note: Callable[[str], None],
        tell: Callable[[HostChange], None] | None = None,
        patience: Patience | None = None,
    ) -> None:
        if importlib.util.find_spec("ray") is None:
            raise JobError("--executor ray needs Ray; pip install 'tritontune[cluster]'")
        if recipe.job.gpus not in {None, ALL, NONE}:
            raise JobError("--gpus: Ray chooses the GPUs of each slot; use --gpus-per-slot N, or --gpus none")
        # Variables that are passed on by their names have their values here.
        job = recipe.job.model_copy(update={"env": resolved(recipe.job.env)})
        self._recipe = replace(recipe, job=job)
        self._input_data = None if job.input_data in MADE_UP else Path(job.input_data).read_bytes()
        self._note = note
        self._note_once = Once(note)
        self._tell = tell or (lambda change: note(str(change)))
        self._patience = patience or Patience()
        self._lock = threading.RLock()
        self._hosts: dict[str, Host] = {}
        self._slots: dict[str, Slot] = {}
        self._known: set[str] = set()
        self._drained: set[str] = set()
        self._under_way: dict[int, _UnderWay] = {}
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._last = 0
        self._reference: HostFacts | None = None
        self._driver: _DriverProcess | None = None
        self._began = threading.Event()
        self._failure = ""
        self._closed = threading.Event()
        self._following: threading.Thread | None = None

    @property
    def hosts(self) -> tuple[Host, ...]:
        """See `Executor`."""
        with self._lock:
            return tuple(self._hosts.values())

    @property
    def slots(self) -> tuple[Slot, ...]:
        """See `Executor`."""
        with self._lock:
            return tuple(slot for slot in self._slots.values() if slot.host not in self._drained)

    def submit(self, work: Work, slot: Slot, folder: Path, progress: TrialProgress) -> Future[Outcome]:
        """See `Executor`."""
        folder.mkdir(parents=True, exist_ok=True)
        future = Future[Outcome]()
        future.set_running_or_notify_cancel()
        with self._lock:
            if self._closed.is_set() or slot.name not in self._known or slot.host in self._drained:
                raise ValueError(f"{slot.name}: no such slot")
            if any(each.slot == slot.name for each in self._under_way.values()):
                raise ValueError(f"{slot.name}: has work already")
            if self._driver is None or slot.name not in self._slots:
                future.set_exception(HostLostError(f"{slot.name}: was lost before the work began"))
                return future
            self._last += 1
            self._under_way[self._last] = _UnderWay(slot.name, folder, progress, future, self._thread_of(slot))
            self._driver.send(Run(self._last, slot.name, pickle.dumps(work)))
        return future

    def drain(self, host: str, reason: str) -> None:
        """See `Executor`."""
        with self._lock:
            if host in self._drained or host not in self._hosts:
                return
            self._drained.add(host)
            if self._driver is not None:
                self._driver.send(Drain(host))
        self._tell(HostChange(host, "drained", reason))

    def close(self) -> None:
        """See `Executor`."""
        if self._closed.is_set():
            return
        self._closed.set()
        with self._lock:
            driver = self._driver
        if driver is not None:
            driver.end(self._patience.close_s + 1.5)
        if self._following is not None:
            self._following.join(1.0)
        self._lose_all("was closed")
        for thread in self._threads.values():
            thread.shutdown(wait=False)

    def __enter__(self) -> Self:
        try:
            self._connect()
            self._following = threading.Thread(target=self._follow, name="ray-executor", daemon=True)
            self._following.start()
            waited_s = self._patience.probe_s + self._patience.place_s + self._patience.open_s
            if not self._began.wait(waited_s):
                raise TuningError(f"no host of the Ray cluster was ready within {waited_s:.0f} s")  # noqa: TRY301
            if self._failure:
                raise TuningError(self._failure)  # noqa: TRY301
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self) -> None:
        """Start the driver, and wait until it is connected.

        Raises:
            JobError: the cluster cannot be reached, or refuses.
        """
        job = self._recipe.job
        address = address_of(job.ray_address, os.environ)
        check_reachable(address)
        driver = _DriverProcess()
        try:
            most = None if job.parallel == AUTO else int(job.parallel)
            driver.send(
                Start(address, self._recipe, most, job.mixed, self._reference, self._patience, self._input_data)
            )
            if reason := self._why_refused(driver):
                where = address or "the Ray cluster of this machine"
                raise JobError(f"--ray-address: cannot connect to {where}: {reason}")  # noqa: TRY301
        except BaseException:
            driver.end(0.0)
            raise
        with self._lock:
            self._driver = driver
        if warning := why_open(address, os.environ):
            self._note(warning)

    def _why_refused(self, driver: _DriverProcess) -> str:
        """Wait until the driver is connected. Returns why it is not; empty: it is."""
        until = time.monotonic() + self._patience.connect_s
        while not driver.connection.poll(_LOOK_S):
            if reason := why_not_connected(driver.words()):
                return reason
            if time.monotonic() > until:
                return f"no answer within {self._patience.connect_s:.0f} s; does it use TLS (RAY_USE_TLS=1)?"
            if self._closed.is_set():
                return "the run ends"
        answer = driver.receive()
        if isinstance(answer, Connected):
            return ""
        words = answer.text if isinstance(answer, Failed) else f"its process ended: {driver.words()[-300:]}"
        return why_not_connected(driver.words()) or words

    def _follow(self) -> None:
        """Read what the driver says. When it ends, start another one, for as long as the run goes on."""
        while not self._closed.is_set():
            driver = self._driver
            while driver is not None and (message := driver.receive()) is not None:
                self._heard(message)
            if self._closed.is_set():
                return
            words = why_not_connected(driver.words() if driver else "") or "its driver ended"
            with self._lock:
                self._driver = None
            if driver is not None:
                driver.end(0.0)
            self._lose_all(f"the connection to the Ray cluster is lost: {words}")
            if not self._began.is_set():
                self._failure = f"the connection to the Ray cluster is lost: {words}"
                self._began.set()
                return
            while not self._closed.wait(self._patience.pause_s):
                try:
                    self._connect()
                except JobError as error:
                    self._note_once(str(error))
                else:
                    break

    def _heard(self, message: Any) -> None:
        if isinstance(message, Joined):
            with self._lock:
                self._reference = self._reference or message.host.facts
                self._hosts[message.host.name] = message.host
                self._slots[message.slot.name] = message.slot
                self._known.add(message.slot.name)
        elif isinstance(message, Lost):
            with self._lock:
                self._slots.pop(message.slot, None)
        elif isinstance(message, Ready):
            self._began.set()
        elif isinstance(message, Failed):
            if self._began.is_set():
                self._note_once(message.text)
            else:
                self._failure = message.text
                self._began.set()
        elif isinstance(message, Note):
            self._note_once(message.text)
        elif isinstance(message, Changed):
            self._tell(message.change)
        elif isinstance(message, (Progress, Done)):
            with self._lock:
                piece = self._under_way.get(message.number)
            if piece is not None:
                piece.thread.submit(self._in_order, message)

    def _in_order(self, message: Progress | Done) -> None:
        """What a slot tells, in the order in which it tells it."""
        if isinstance(message, Progress):
            self._pass_on(message)
        else:
            self._finish(message)

    def _pass_on(self, message: Progress) -> None:
        with self._lock:
            piece = self._under_way.get(message.number)
        if piece is None:
            return
        try:
            what = pickle.loads(message.what)  # noqa: S301 (from our own driver)
            (piece.progress.level_began if message.began else piece.progress.point_measured)(what)
        except Exception as error:  # noqa: BLE001 (who submitted the work hears it)
            with self._lock:
                self._under_way.pop(message.number, None)
            piece.future.set_exception(error)

    def _finish(self, message: Done) -> None:
        with self._lock:
            piece = self._under_way.pop(message.number, None)
        if piece is None:
            return
        try:
            write_files(piece.folder, message.files)
            if message.outcome is not None:
                piece.future.set_result(pickle.loads(message.outcome))  # noqa: S301 (from our own driver)
            elif message.error is not None:
                piece.future.set_exception(pickle.loads(message.error))  # noqa: S301 (the same)
            else:
                piece.future.set_exception(HostLostError(message.lost))
        except Exception as error:  # noqa: BLE001 (a full disk, for example; its caller hears it)
            if not piece.future.done():
                piece.future.set_exception(error)

    def _thread_of(self, slot: Slot) -> ThreadPoolExecutor:
        if slot.name not in self._threads:
            self._threads[slot.name] = ThreadPoolExecutor(1, thread_name_prefix=f"tritontune-{slot.name}")
        return self._threads[slot.name]

    def _lose_all(self, reason: str) -> None:
        with self._lock:
            self._slots.clear()
            lost, self._under_way = list(self._under_way.values()), {}
        for piece in lost:
            piece.future.set_exception(HostLostError(f"{piece.slot}: {reason}"))


class _DriverProcess:
    """The run's side of the driver. It has a session of its own, so that neither Ctrl-C nor Ctrl-Z reaches it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._words: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        try:
            self._process = subprocess.Popen(  # noqa: S603 (our own Python)
                [sys.executable, "-I", "-c", _MAIN.format(path=sys.path), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self._words,
                stderr=self._words,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            self._words.close()
            raise TuningError(f"the driver of Ray cannot be started: {error.strerror}") from None
        finally:
            theirs.close()
        self.connection = Connection(ours.detach())
        self._writing = threading.Lock()

    def send(self, message: Any) -> None:
        """Send a message; what a driver that has ended does not get is noticed by its reader."""
        with self._writing, contextlib.suppress(OSError):
            self.connection.send(message)

    def receive(self) -> Any:
        """The next message; None: the driver has ended."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return None

    def words(self) -> str:
        """What it and Ray wrote."""
        with contextlib.suppress(OSError, ValueError):
            size = os.fstat(self._words.fileno()).st_size
            return os.pread(self._words.fileno(), 65536, max(0, size - 65536)).decode(errors="replace")
        return ""

    def end(self, within_s: float) -> None:
        """End it: first ask, then kill. Ray ends its actors then."""
        if within_s:
            self.send(Close())
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(within_s)
        self._process.kill()
        self._process.wait()
        self._words.close()
