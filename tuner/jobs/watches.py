"""Tells the progress of a run what happens on its slots and hosts."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from tuner.cluster.dispatcher import Piece, Watch
from tuner.cluster.executor import Executor
from tuner.cluster.host_changes import HostChange
from tuner.cluster.slots import Host, Slot
from tuner.jobs.progress import Progress
from tuner.measure.work import Outcome, TrialProgress, Work


class LaunchWatch(Watch):
    """Tells of launches that are no trials; the keys of their work are words. Only for a run with several slots.

    Args:
        progress: Receives what happens.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def began(self, piece: Piece) -> None:
        """See `Watch`."""
        self._progress.launch_began(piece.slot.name, str(piece.key))

    def requeued(self, piece: Piece, reason: str) -> None:
        """See `Watch`."""
        self._progress.requeued(str(piece.key), piece.slot.name, reason)

    def ended(self, piece: Piece) -> None:
        """See `Watch`."""
        self._progress.launch_ended(piece.slot.name)


class WatchedExecutor:
    """An executor of several slots that tells what happens to its hosts; it looks whenever it is asked for slots.

    Args:
        executor: Carries out the work.
        progress: Receives what happens.
    """

    def __init__(self, executor: Executor, progress: Progress) -> None:
        self._executor, self._progress = executor, progress
        self._works: dict[str, bool] = {}
        self._drained: set[str] = set()

    @property
    def hosts(self) -> tuple[Host, ...]:
        """See `Executor`."""
        return self._executor.hosts

    @property
    def slots(self) -> tuple[Slot, ...]:
        """See `Executor`."""
        slots = self._executor.slots
        self._look({slot.host for slot in slots})
        return slots

    def submit(self, work: Work, slot: Slot, folder: Path, progress: TrialProgress) -> Future[Outcome]:
        """See `Executor`."""
        return self._executor.submit(work, slot, folder, progress)

    def drain(self, host: str, reason: str) -> None:
        """See `Executor`."""
        if host not in self._drained:
            self._drained.add(host)
            self._progress.host_changed(HostChange(host, "drained", reason))
        self._executor.drain(host, reason)

    def close(self) -> None:
        """See `Executor`."""
        self._executor.close()

    def __enter__(self) -> Self:
        self._executor.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.__exit__(kind, error, trace)

    def _look(self, at_work: set[str]) -> None:
        for host in self.hosts:
            if host.name not in self._works:
                self._works[host.name] = True
                self._progress.host_changed(_admitted(host))
        for name, worked in self._works.items():
            works = name in at_work
            if works != worked and name not in self._drained:
                self._works[name] = works
                self._progress.host_changed(HostChange(name, "back" if works else "lost"))


def _admitted(host: Host) -> HostChange:
    return HostChange(
        host.name,
        "admitted",
        host_class=host.host_class,
        slots=tuple(slot.name for slot in host.slots),
        description=f"{host.machine}; {host.description}",
    )
