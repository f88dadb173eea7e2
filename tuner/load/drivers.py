"""The seam between a worker process and the driver that it holds: what is offered, asked and answered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from tuner.core.loads import Concurrency, Load
from tuner.load.arrivals import arrivals
from tuner.load.ledger import LedgerWriter
from tuner.load.workload import Request


@dataclass(frozen=True)
class Offer:
    """A worker's share of a load.

    Attributes:
        load: The whole.
        seed: Of its arrivals, the same for all workers.
        worker: Which of the workers this is, from 0.
        workers: How many there are.
        start_ns: When it begins, on the machine's monotonic clock.
        request_timeout_s: Deadline of each request; None: the plan's.
    """

    load: Load
    seed: int
    worker: int
    workers: int
    start_ns: int
    request_timeout_s: float | None = None

    @property
    def concurrency(self) -> int | None:
        """How many requests this worker keeps under way; None in an open loop."""
        if not isinstance(self.load, Concurrency):
            return None
        each, more = divmod(self.load.requests, self.workers)
        return each + (self.worker < more)

    def due_ns(self) -> Iterator[int]:
        """When this worker's requests of an open loop are due: every so many-th of the one schedule."""
        if isinstance(self.load, Concurrency):
            raise TypeError("a closed loop has no schedule")
        for offset_ns in islice(arrivals(self.load, self.seed), self.worker, None, self.workers):
            yield self.start_ns + offset_ns

    def first_of(self, count: int) -> int:
        """With which of so many requests this worker begins: each with another, so that all of them are sent."""
        return self.worker * count // self.workers

    def rotation(self, requests: tuple[Request, ...]) -> Iterator[Request]:
        """The requests in turn, without end."""
        at = self.first_of(len(requests))
        while True:
            yield requests[at % len(requests)]
            at += 1


@dataclass(frozen=True)
class Ask:
    """One request of its own, whose answer comes back whole.

    Attributes:
        timeout_s: Its deadline; None: the plan's.
    """

    request: Request
    timeout_s: float | None = None


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        body: The serialised answer; of several responses, the first.
        error: `CODE: message`, or None when all is well.
    """

    body: bytes
    error: str | None = None


class Driver(Protocol):
    """Sends requests of one kind: what a worker process holds."""

    def offer(self, offer: Offer, ledger: LedgerWriter) -> None:
        """Offer the load until `ledger.stop_ns` is set or the load is over, then drain; return with nothing under way.

        After `ledger.end` it notes nothing. It calls `ledger.tick` 20 times a second or more.
        """

    def ask(self, request: Request, timeout_s: float | None = None) -> Answer:
        """Send one request and return its answer, within a deadline; None: the plan's."""

    def rest(self, descriptor: int) -> None:
        """Keep connections alive until there is something to read from a descriptor."""

    def close(self) -> None:
        """Close all connections."""
