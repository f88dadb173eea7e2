"""An executor without servers, for tests of what gives it work."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace, TracebackType

from typing_extensions import Self

from tuner.cluster.slots import Host, HostFacts, Slot
from tuner.core.errors import HostLostError
from tuner.core.machine import Machine
from tuner.measure.trial import TrialResult
from tuner.measure.work import Limits, Outcome, Sweep, TrialContext, TrialProgress, Work, carry_out
from tuner.space.candidate import Candidate

CarryOut = Callable[[Work, Path, TrialProgress], Outcome]
"""Carries out a piece of work; what it raises, `submit` raises, as an executor of this process does for Ctrl-C."""

MACHINE = Machine(cpus=2, gpus=(), processor="x86_64")


def host(name: str = "here", slots: int = 1, *, machine: Machine = MACHINE, host_class: str = "") -> Host:
    """A host with some slots."""
    facts = HostFacts(gpus=(), driver="", processor="x86_64", cores=2, server="Triton")
    return Host(name, facts, machine, "Triton", tuple(Slot(f"{name}/{n}", name) for n in range(slots)), host_class)


class FakeExecutor:
    """An `Executor` whose work is done by a function as it is submitted.

    Args:
        carry_out: Carries out the work.
        hosts: Its hosts.
    """

    def __init__(self, carry_out: CarryOut, hosts: tuple[Host, ...] = (host(),)) -> None:
        self._carry_out = carry_out
        self._hosts = hosts
        self.drained: dict[str, str] = {}
        self.submitted: list[tuple[Work, Slot]] = []

    @property
    def hosts(self) -> tuple[Host, ...]:
        """See `Executor`."""
        return self._hosts

    @property
    def slots(self) -> tuple[Slot, ...]:
        """See `Executor`."""
        return tuple(slot for each in self._hosts if each.name not in self.drained for slot in each.slots)

    def submit(self, work: Work, slot: Slot, folder: Path, progress: TrialProgress) -> Future[Outcome]:
        """See `Executor`."""
        self.submitted.append((work, slot))
        done = Future[Outcome]()
        done.set_result(self._carry_out(work, folder, progress))
        return done

    def drain(self, host: str, reason: str) -> None:
        """See `Executor`."""
        self.drained[host] = reason

    def close(self) -> None:
        """See `Executor`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See `Executor`."""


def run_trial(
    context: TrialContext, candidate: Candidate, number: int, folder: Path, *, limits: Limits, progress: TrialProgress
) -> TrialResult:
    """Carry a trial out in this process."""
    work = Work(context.terms, candidate.patch, Sweep(), limits, is_baseline=number == 0)
    return TrialResult.of(candidate, number, carry_out(work, context, folder, progress))


class SlotsExecutor(FakeExecutor):
    """An executor whose oldest work ends when somebody waits for it (`first_of`).

    Attributes:
        most: The most pieces that were under way at a time.
        lost: Names of lost hosts.
        host: The host whose work is carried out now.
    """

    def __init__(self, carry_out: CarryOut, hosts: tuple[Host, ...]) -> None:
        super().__init__(carry_out, hosts)
        self.most = 0
        self.lost: set[str] = set()
        self.host = ""
        self._queue: list[tuple[Future[Outcome], Slot, Callable[[], Outcome]]] = []

    @property
    def slots(self) -> tuple[Slot, ...]:
        """See `Executor`."""
        return tuple(slot for slot in super().slots if slot.host not in self.lost)

    def submit(self, work: Work, slot: Slot, folder: Path, progress: TrialProgress) -> Future[Outcome]:
        """See `Executor`."""
        self.submitted.append((work, slot))
        done = Future[Outcome]()
        self._queue.append((done, slot, lambda: self._carry_out(work, folder, progress)))
        self.most = max(self.most, len(self._queue))
        return done

    def first_of(self, futures: Iterable[Future[Outcome]], **_: object) -> SimpleNamespace:
        """End the oldest work; stands for `concurrent.futures.wait`."""
        done, slot, carry_out = self._queue.pop(0)
        assert done in futures
        self.host = slot.host
        if slot.host in self.lost:
            done.set_exception(HostLostError(f"host {slot.host} was lost"))
        else:
            try:
                done.set_result(carry_out())
            except HostLostError as error:
                done.set_exception(error)
        return SimpleNamespace(done={done})
