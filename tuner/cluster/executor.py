"""Executors carry out pieces of work on slots; every implementation passes `tuner/testing/executor_contract.py`."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Protocol

from typing_extensions import Self

from tuner.cluster.slots import Host, Slot
from tuner.measure.work import Outcome, TrialProgress, Work


class Executor(Protocol):
    """Carries out pieces of work. Leaving the context ends all of them."""

    @property
    def hosts(self) -> tuple[Host, ...]:
        """The admitted hosts. The first one is the reference: the search space is bounded by its machine."""

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The slots that may be given work, busy ones included: their hosts are neither lost nor drained."""

    def submit(self, work: Work, slot: Slot, folder: Path, progress: TrialProgress) -> Future[Outcome]:
        """Carry out a piece of work on a slot, which has no other work.

        Args:
            work: The work.
            slot: One of `slots`.
            folder: The folder on this machine for the files of the launch; created by the executor.
            progress: Called with each load level, perhaps from another thread.

        Returns:
            The outcome, later. Its exception is a `HostLostError` if the slot was lost, which is no fault of the
            candidate, a `UsageError` or a `TuningError` as `carry_out` raises them, or a bug.
        """

    def drain(self, host: str, reason: str) -> None:
        """Give a host no more work; what it carries out now is finished.

        Args:
            host: The name of the host.
            reason: Why, in one line, for the user.
        """

    def close(self) -> None:
        """End all work within 10 s, and leave nothing behind on any host; may be repeated."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
