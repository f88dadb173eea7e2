"""Carries out work in this process, one piece at a time."""

from __future__ import annotations

import socket
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from tuner.cluster.slot_context import SlotContext
from tuner.cluster.slots import Host, HostFacts, Slot
from tuner.measure.work import Outcome, TrialProgress, Work, carry_out


class InProcessExecutor:
    """An `Executor` of one slot, this process: `submit` returns when the work is done, and Ctrl-C interrupts it.

    Args:
        context: The open slot; the caller closes it.
    """

    def __init__(self, context: SlotContext) -> None:
        self.context = context
        name, machine = socket.gethostname(), context.machine
        facts = HostFacts.here(machine, context.launcher.description)
        slot = Slot(f"{name}/all", name)
        self._host = Host(name, facts, machine, context.launcher.description, (slot,))

    @property
    def hosts(self) -> tuple[Host, ...]:
        """See `Executor`."""
        return (self._host,)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """See `Executor`."""
        return self._host.slots

    def submit(self, work: Work, slot: Slot, folder: Path, progress: TrialProgress) -> Future[Outcome]:
        """See `Executor`."""
        if slot not in self.slots:
            raise ValueError(f"{slot.name}: no such slot")
        done = Future[Outcome]()
        try:
            done.set_result(carry_out(work, self.context.trial_context(work.terms), folder, progress))
        except Exception as error:  # noqa: BLE001 (as from any other executor)
            done.set_exception(error)
        return done

    def drain(self, host: str, reason: str) -> None:
        """Do nothing: there is no other host to go on with."""

    def close(self) -> None:
        """Do nothing: no work is under way when `submit` has returned."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
