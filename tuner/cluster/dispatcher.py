"""Gives work to free slots, waits for outcomes, and repeats work once whose host was lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Future
from concurrent.futures import wait as first_of
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.cluster.executor import Executor
from tuner.cluster.slots import Host, Slot
from tuner.core.errors import HostLostError, TuningError
from tuner.measure.work import UNHEARD, Outcome, TrialProgress, Work

# Seconds that a run waits for a host while it has none.
_WITHOUT_HOSTS_S = 60.0
# Seconds between looks at the hosts while nothing else happens.
_LOOK_S = 1.0


@dataclass(frozen=True)
class Piece:
    """A piece of work under way.

    Attributes:
        key: What its caller knows it by.
        work: The work.
        slot: Where it is carried out.
        folder: The folder for its files.
        progress: Called with each load level.
        host_class: The class of hosts that may carry it out.
        repeats: Whether it is done again on another host if this one is lost.
        lost: Why its first host was lost; empty: it was not.
        lost_at: When that was, by the clock of the dispatcher.
    """

    key: object
    work: Work
    slot: Slot
    folder: Path
    progress: TrialProgress
    host_class: str
    repeats: bool
    lost: str = ""
    lost_at: float = 0.0


@dataclass(frozen=True)
class Finished:
    """A piece of work that has ended.

    Attributes:
        piece: The piece.
        outcome: Its outcome; None: its hosts were lost.
    """

    piece: Piece
    outcome: Outcome | None


class Watch:
    """Told what a dispatcher does. The base class ignores it."""

    def began(self, piece: Piece) -> None:
        """A piece of work begins on its slot, perhaps a second time."""

    def requeued(self, piece: Piece, reason: str) -> None:
        """The slot of a piece was lost, and another host will do it."""

    def ended(self, piece: Piece) -> None:
        """A piece has ended, with an outcome or without one."""


class Dispatcher:
    """Gives work to the slots of an executor.

    Args:
        executor: The executor.
        watch: Told what happens to each piece.
        now: The clock, in seconds.
        sleep: Waits for some seconds.
    """

    def __init__(
        self,
        executor: Executor,
        watch: Watch | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._executor = executor
        self._watch = watch or Watch()
        self._now = now
        self._sleep = sleep
        self._under_way: dict[Future[Outcome], Piece] = {}
        self._again: list[Piece] = []
        self._alone_since: float | None = None

    @property
    def hosts(self) -> tuple[Host, ...]:
        """The hosts of the executor, the reference first."""
        return self._executor.hosts

    @property
    def under_way(self) -> tuple[object, ...]:
        """The keys of the pieces that have not ended, in order of their start."""
        return tuple(piece.key for piece in (*self._under_way.values(), *self._again))

    def is_free(self, slot: Slot) -> bool:
        """Whether a slot is still there, without work."""
        busy = {piece.slot.name for piece in self._under_way.values()}
        return slot.name not in busy and any(each.name == slot.name for each in self._executor.slots)

    def free(self) -> tuple[Slot, ...]:
        """The slots without work, but for those that lost work waits for."""
        busy = {piece.slot.name for piece in self._under_way.values()}
        slots = tuple(slot for slot in self._executor.slots if slot.name not in busy)
        return slots if not self._again else ()

    @property
    def comparable(self) -> tuple[Slot, ...]:
        """The slots of one class of hosts, busy ones included: the reference class, while it has slots."""
        slots = self._executor.slots
        of = min((self._class_of(slot) for slot in slots), default="")
        return tuple(slot for slot in slots if self._class_of(slot) == of)

    def free_comparable(self) -> tuple[Slot, ...]:
        """The free slots of `comparable`: what is measured on them can be taken together."""
        names = {slot.name for slot in self.comparable}
        return tuple(slot for slot in self.free() if slot.name in names)

    def start(
        self, key: object, work: Work, slot: Slot, folder: Path, progress: TrialProgress, *, repeats: bool = True
    ) -> None:
        """Carry out a piece of work on a free slot.

        Args:
            key: What the caller knows it by.
            work: The work.
            slot: One of `free()`.
            folder: The folder for its files.
            progress: Called with each load level.
            repeats: Whether another host of the same class does it again if this one is lost.
        """
        self._submit(Piece(key, work, slot, folder, progress, self._class_of(slot), repeats))

    def wait(self) -> Finished | None:
        """Wait until a piece ends, or a slot joins. Without work and slots, wait for a slot.

        Returns:
            The piece; None: there is another slot.

        Raises:
            UsageError, TuningError: as `carry_out`; or no host is left.
        """
        known = {slot.name for slot in self._executor.slots}
        while True:
            if given_up := self._place_again():
                self._watch.ended(given_up)
                return Finished(given_up, None)
            done = self._done_soon()
            for future in [each for each in self._under_way if each in done]:
                piece = self._under_way.pop(future)
                try:
                    outcome = future.result()
                except HostLostError as lost:
                    if piece.lost or not piece.repeats:
                        self._watch.ended(piece)
                        return Finished(piece, None)
                    self._watch.requeued(piece, str(lost))
                    self._again.append(replace(piece, lost=str(lost), lost_at=self._now()))
                except BaseException:
                    self._watch.ended(piece)
                    raise
                else:
                    self._watch.ended(piece)
                    return Finished(piece, replace(outcome, host=piece.slot.host))
            self._check_hosts()
            if not self._again and {slot.name for slot in self.free()} - known:
                return None

    def outcome(self) -> Finished:
        """Wait until a piece ends; there must be one under way.

        Raises:
            UsageError, TuningError: see `wait`.
        """
        while (finished := self.wait()) is None:
            pass
        return finished

    def carry_out(self, key: object, work: Work, folder: Path, progress: TrialProgress = UNHEARD) -> Outcome:
        """Carry out one piece of work, while no other is under way.

        Raises:
            UsageError, TuningError: see `wait`; or its hosts were lost twice.
        """
        while not (free := self.free_comparable()):
            self.wait()
        self.start(key, work, free[0], folder, progress)
        if (outcome := self.outcome().outcome) is None:
            raise TuningError(f"model {work.terms.model!r}: the hosts of a launch were lost twice")
        return outcome

    def _class_of(self, slot: Slot) -> str:
        return next((host.host_class for host in self._executor.hosts if host.name == slot.host), "")

    def _done_soon(self) -> Collection[Future[Outcome]]:
        """The pieces that have ended within the next look."""
        if self._under_way:
            return first_of(self._under_way, timeout=_LOOK_S, return_when=FIRST_COMPLETED).done
        self._sleep(_LOOK_S)
        return ()

    def _submit(self, piece: Piece) -> None:
        self._watch.began(piece)
        future = self._executor.submit(piece.work, piece.slot, piece.folder, piece.progress)
        self._under_way[future] = piece

    def _place_again(self) -> Piece | None:
        """Give lost work to free slots of its class, on another host if there is one.

        Returns:
            A piece whose class has had no host for too long; None: there is none.
        """
        busy = {piece.slot.name for piece in self._under_way.values()}
        for piece in list(self._again):
            fitting = [slot for slot in self._executor.slots if self._class_of(slot) == piece.host_class]
            free = [slot for slot in fitting if slot.name not in busy]
            if free:
                slot = min(free, key=lambda each: each.host == piece.slot.host)
                busy.add(slot.name)
                self._again.remove(piece)
                self._submit(replace(piece, slot=slot))
            elif not fitting and len(self._executor.slots) and self._now() - piece.lost_at >= _WITHOUT_HOSTS_S:
                self._again.remove(piece)
                return piece
        return None

    def _check_hosts(self) -> None:
        """End the run when it has had no host for a while.

        Raises:
            TuningError: there is none.
        """
        if self._under_way or self._executor.slots:
            self._alone_since = None
            return
        now = self._now()
        self._alone_since = self._alone_since or now
        if now - self._alone_since >= _WITHOUT_HOSTS_S:
            reason = next((piece.lost for piece in self._again), "")
            raise TuningError(f"no host is left to go on with{f': {reason}' if reason else ''}")
