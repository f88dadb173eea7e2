"""The actor of a slot, on its host: it owns the `SlotProcess`, and keeps what it has to say until the driver asks.

Arguments of its methods are parts of pickled objects (`in_parts`), and its constructor has none that is secret: Ray
stores those in the database of the cluster. So secrets stay in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import ray

from tuner.cluster.ray.host_environment import changes_for
from tuner.cluster.ray.launch_files import files_in
from tuner.cluster.ray.parts import whole
from tuner.cluster.slot_context import SlotRecipe
from tuner.cluster.slot_locks import SlotInUseError
from tuner.cluster.slot_process import SlotProcess
from tuner.cluster.slots import Host, Slot
from tuner.core.errors import HostLostError, TritontuneError
from tuner.core.loads import Load
from tuner.core.nvml import NoNvmlError, all_gpus
from tuner.core.nvml import opened as nvml_opened
from tuner.measure.points import OperatingPoint
from tuner.measure.work import Work
from tuner.servers.docker.pull import Pull
from tuner.servers.work_folder import work_folder

# Seconds that `poll` waits for something to tell.
_POLL_S = 2.0
_CLOSE_S = 6.0

Told = tuple[int, str, Any]
"""What an actor tells: a number that rises, the kind, and the contents, mostly pickled."""


class SlotActor:
    """Opens a slot, and carries out work on it, one piece at a time.

    Args:
        alone_s: Seconds without a call after which the driver is regarded as gone.
    """

    def __init__(self, alone_s: float) -> None:
        self._alone_s = alone_s
        self._heard = time.monotonic()
        self._told: list[Told] = []
        self._last = 0
        self._news = asyncio.Event()
        self._lock = threading.Lock()
        self._process: SlotProcess | None = None
        self._closing = False
        self._pulled: set[str] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def devices(self) -> list[tuple[str, str]]:
        """The GPUs that Ray gave to this actor: Ray's names, and UUIDs. Also begins to watch for the driver."""
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._end_when_alone, daemon=True).start()
        return _with_uuids([str(name) for name in ray.get_gpu_ids()])

    async def open(self, *recipe_and_slot: bytes) -> None:
        """Begin to open the slot; tells `opened` or `refused`."""
        recipe, slot = whole(recipe_and_slot)
        threading.Thread(target=self._open, args=(recipe, slot), daemon=True).start()

    async def run(self, number: int, *work: bytes) -> None:
        """Begin a piece of work; tells `began` and `measured`, and at last `done` or `raised`."""
        threading.Thread(target=self._run, args=(number, whole(work)), daemon=True).start()

    async def poll(self, after: int) -> list[Told]:
        """What was told after a number; waits a while if that is nothing. What came before is forgotten."""
        self._heard = time.monotonic()
        with self._lock:
            self._told = [each for each in self._told if each[0] > after]
            if not self._told:
                self._news.clear()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._news.wait(), _POLL_S)
        with self._lock:
            return list(self._told)

    async def close(self) -> None:
        """End the work, and close the slot."""
        await asyncio.get_running_loop().run_in_executor(None, self._close)

    def _open(self, recipe: SlotRecipe, slot: Slot) -> None:
        try:
            process = SlotProcess.start(
                recipe,
                slot,
                note=lambda text: self._tell("note", text),
                see_pull=self._see_pull,
                environment=changes_for(slot),
            )
            with self._lock:
                self._process = process
                late = self._closing
            if late:
                process.close(grace_s=0.0)
            else:
                opened = process.opened()
                host = Host(slot.host, opened.facts, opened.machine, opened.description, (slot,))
                self._tell("opened", pickle.dumps(host))
        except Exception as error:  # noqa: BLE001 (for the driver)
            self._tell("refused", (isinstance(error, (HostLostError, SlotInUseError)), _words(error)))

    def _see_pull(self, pull: Pull) -> None:
        if pull.image not in self._pulled:
            self._pulled.add(pull.image)
            self._tell("note", f"pulling {pull.image}")

    def _run(self, number: int, work: Work) -> None:
        with work_folder() as folder:
            try:
                if self._process is None:
                    raise HostLostError("the slot is not open")  # noqa: TRY301 (told as any other)
                outcome = self._process.run(work, folder / "launch", _Teller(self, number))
            except HostLostError as error:
                self._tell("broken", (number, str(error)))
            except Exception as error:  # noqa: BLE001 (raised in the process of the run)
                self._tell("raised", (number, pickle.dumps(error), files_in(folder / "launch")))
            else:
                self._tell("done", (number, pickle.dumps(outcome), files_in(folder / "launch")))

    def tell_progress(self, number: int, kind: str, what: object) -> None:
        """Tell the progress of a piece of work."""
        self._tell(kind, (number, pickle.dumps(what)))

    def _tell(self, kind: str, contents: Any) -> None:
        with self._lock:
            self._last += 1
            self._told.append((self._last, kind, contents))
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it who would listen
                self._loop.call_soon_threadsafe(self._news.set)

    def _close(self) -> None:
        with self._lock:
            self._closing = True
            process = self._process
        if process is not None:
            process.interrupt()
            process.close(grace_s=_CLOSE_S)

    def _end_when_alone(self) -> None:
        """End this process when the driver has not called for a while: it is gone, or the network is cut."""
        for waited in _seconds(step_s=min(5.0, self._alone_s / 4)):
            # A process that was stopped sees the clock jump; it waits once more.
            self._heard += max(0.0, waited - 2 * min(5.0, self._alone_s / 4))
            if time.monotonic() - self._heard > self._alone_s:
                self._close()
                os._exit(1)


class _Teller:
    """Tells the progress of a piece of work."""

    def __init__(self, actor: SlotActor, number: int) -> None:
        self._actor = actor
        self._number = number

    def level_began(self, load: Load) -> None:
        self._actor.tell_progress(self._number, "began", load)

    def point_measured(self, point: OperatingPoint) -> None:
        self._actor.tell_progress(self._number, "measured", point)


def _seconds(step_s: float) -> Iterator[float]:
    """Waits, again and again; yields the seconds that each wait took."""
    while True:
        before = time.monotonic()
        time.sleep(step_s)
        yield time.monotonic() - before


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, TritontuneError) else f"{type(error).__name__}: {error}"


def _with_uuids(names: Sequence[str]) -> list[tuple[str, str]]:
    """GPUs that Ray names by their indices or UUIDs, and their UUIDs; where NVML does not know them, their names."""
    try:
        with nvml_opened():
            known = {str(gpu.index): gpu.uuid for gpu in all_gpus() if gpu.mig_index is None}
    except NoNvmlError:
        known = {}
    return [(name, known.get(name, name)) for name in names]
