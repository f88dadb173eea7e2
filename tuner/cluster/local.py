"""Carries out work in slots of this machine, several pieces at a time."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from tuner.cluster.host_changes import HostChange
from tuner.cluster.once import Once
from tuner.cluster.slot_context import SlotRecipe
from tuner.cluster.slot_locks import SlotLock, choosing, holders, lock_slot, parts_in_use
from tuner.cluster.slot_process import SlotProcess
from tuner.cluster.slot_worker import GRACE_S
from tuner.cluster.slots import Host, Parts, Shape, Slot, note_on
from tuner.core.errors import HostLostError, JobError, TritontuneError, TuningError
from tuner.measure.work import Outcome, TrialProgress, Work
from tuner.options.tune_job import TuneJob
from tuner.servers.docker.pull import SeePull

# A slot that is lost so often, without work done in between, is not opened again.
_MOST_LOSSES = 3

Tell = Callable[[HostChange], None]
"""Called with what happens to a host, from any thread."""


@contextmanager
def local_executor(
    recipe: SlotRecipe, *, note: Callable[[str], None], see_pull: SeePull = lambda _pull: None, tell: Tell | None = None
) -> Iterator[LocalExecutor]:
    """An executor with the slots of this machine that the job asks for, as far as they are free.

    Args:
        recipe: What slots are opened by.
        note: Takes messages for the user, from any thread.
        see_pull: Called with the progress of pulling the image, from any thread.
        tell: Called with what happens to this host.

    Raises:
        JobError: this machine has too few GPUs or cores, or all slots are in use.
        UsageError: the job or the repository is wrong on this machine.
        TuningError: no Triton works here.
    """
    with ExitStack() as held:
        slots, locks = chosen_slots(recipe.job, note)
        for lock in locks:
            held.enter_context(lock)
        with _thread_beside(slots), LocalExecutor(recipe, slots, locks, note, see_pull, tell) as executor:
            yield executor


def chosen_slots(job: TuneJob, note: Callable[[str], None]) -> tuple[tuple[Slot, ...], tuple[SlotLock, ...]]:
    """The free slots of this machine that a job asks for, and their locks.

    Args:
        job: The job.
        note: Takes messages about slots in use, and about cores that are too few.

    Raises:
        JobError: this machine has too few GPUs or cores, or all slots are in use.
    """
    parts = Parts.here(job)
    shape = Shape.of(job, parts)
    host = socket.gethostname()
    with choosing(), ExitStack() as held:
        used = parts_in_use(parts)
        slots = shape.slots(host, parts.without(used))
        if len(slots) < shape.most:
            who = holders(used)
            if not slots:
                raise JobError(f"no slot is free: other runs use the GPUs or cores of this machine ({who})")
            note(f"{shape.most - len(slots)} of {shape.most} slots are left out, as other runs use them ({who})")
        locks = tuple(held.enter_context(lock_slot(slot)) for slot in slots)
        held.pop_all()
    note_on(slots, note)
    return slots, locks


@contextmanager
def _thread_beside(slots: Sequence[Slot]) -> Iterator[None]:
    """Within the context, this thread uses the cores that no slot uses, if there are any."""
    before = os.sched_getaffinity(0)
    own = before.difference(*(slot.cores | slot.load_cores for slot in slots))
    if own:
        os.sched_setaffinity(0, own)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class _Place:
    """A slot, its lock, its process, and the thread that waits for the process."""

    def __init__(self, slot: Slot, lock: SlotLock, process: SlotProcess) -> None:
        self.slot = slot
        self.lock = lock
        self.process = process
        self.thread = ThreadPoolExecutor(1, thread_name_prefix=f"tritontune-{slot.name}")
        self.work: Future[Outcome] | None = None
        self.losses = 0
        # Whether it is lost, and not opened again so far.
        self.lost = False

    @property
    def busy(self) -> bool:
        return self.work is not None and not self.work.done()


class LocalExecutor:
    """An `Executor` with slots of this machine, each in a process of its own.

    A slot that was lost is opened again.

    Args:
        recipe: What slots are opened by.
        slots: The slots.
        locks: Their locks, which the caller releases.
        note: Takes messages for the user, from any thread; each is passed on once.
        see_pull: Called with the progress of pulling the image, from any thread.
        tell: Called with what happens to this host.

    Raises:
        UsageError: the job or the repository is wrong on this machine.
        TuningError: no Triton works here.
    """

    def __init__(  # noqa: PLR0917 (called at one place, just above)
        self,
        recipe: SlotRecipe,
        slots: Sequence[Slot],
        locks: Sequence[SlotLock],
        note: Callable[[str], None],
        see_pull: SeePull = lambda _pull: None,
        tell: Tell | None = None,
    ) -> None:
        self._recipe = recipe
        self._note = Once(note)
        self._see_pull = see_pull
        self._tell: Tell = tell or (lambda _change: None)
        self._places: list[_Place] = []
        self._drained = self._closed = False
        try:
            for slot, lock in zip(slots, locks, strict=True):
                self._places.append(_Place(slot, lock, self._start(slot, lock)))
            self._host = self._admitted()
        except HostLostError as error:
            self.close()
            raise TuningError(str(error)) from error
        except BaseException:
            self.close()
            raise
        names = tuple(slot.name for slot in self._host.slots)
        self._tell(HostChange(self._host.name, "admitted", slots=names, description=str(self._host.machine)))

    @property
    def hosts(self) -> tuple[Host, ...]:
        """See `Executor`."""
        return (self._host,)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """See `Executor`."""
        for place in self._places:
            if not place.lost and not place.busy and not place.process.lives:
                self._lose(place)
        return tuple(place.slot for place in self._places if not place.lost and not self._drained)

    def submit(self, work: Work, slot: Slot, folder: Path, progress: TrialProgress) -> Future[Outcome]:
        """See `Executor`.

        Raises:
            ValueError: there is no such slot, its host is drained, or it has work.
        """
        place = next((place for place in self._places if place.slot == slot), None)
        if place is None or self._drained or self._closed:
            raise ValueError(f"{slot.name}: no such slot")
        if place.busy:
            raise ValueError(f"{slot.name}: has work already")
        if place.lost:
            lost = Future[Outcome]()
            lost.set_exception(HostLostError(f"{slot.name}: was lost before the work began"))
            return lost
        place.work = place.thread.submit(self._run, place, work, folder, progress)
        return place.work

    def drain(self, host: str, reason: str) -> None:
        """See `Executor`."""
        if host == self._host.name and not self._drained:
            self._drained = True
            self._tell(HostChange(host, "drained", reason))

    def close(self) -> None:
        """See `Executor`."""
        self._closed = True
        until = time.monotonic() + GRACE_S
        for place in self._places:
            place.process.interrupt()
        for place in self._places:
            place.process.close(grace_s=max(0.0, until - time.monotonic()))
        for place in self._places:
            place.thread.shutdown()

    def _start(self, slot: Slot, lock: SlotLock) -> SlotProcess:
        return SlotProcess.start(self._recipe, slot, note=self._note, see_pull=self._see_pull, lock=lock.copy())

    def _admitted(self) -> Host:
        """This host, once its slots are open. Slots that differ from the first one are left out."""
        first = self._places[0].process.opened()
        for place in self._places[1:]:
            if differing := place.process.opened().facts.differing_fields(first.facts):
                self._note(
                    f"{place.slot.name} is left out: its {differing[0]} differ from {self._places[0].slot.name}'s"
                )
                self._places.remove(place)
                place.process.close()
                place.thread.shutdown()
        slots = tuple(place.slot for place in self._places)
        return Host(slots[0].host, first.facts, first.machine, first.description, slots)

    def _run(self, place: _Place, work: Work, folder: Path, progress: TrialProgress) -> Outcome:
        try:
            outcome = place.process.run(work, folder, progress)
        except HostLostError:
            self._lose(place)
            raise
        place.losses = 0
        return outcome

    def _lose(self, place: _Place) -> None:
        place.lost = True
        place.losses += 1
        if self._closed:
            return
        if place.losses < _MOST_LOSSES:
            place.thread.submit(self._open_again, place)
        elif all(each.losses >= _MOST_LOSSES for each in self._places):
            self._tell(HostChange(self._host.name, "lost", "its slots were lost again and again"))

    def _open_again(self, place: _Place) -> None:
        place.process.close(grace_s=0)
        try:
            place.process = self._start(place.slot, place.lock)
            if self._closed:
                place.process.close(grace_s=0)
            place.process.opened()
        except TritontuneError as error:
            place.losses = _MOST_LOSSES
            if not self._closed:
                self._note(f"{place.slot.name} cannot be opened again: {error}")
        else:
            place.lost = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
