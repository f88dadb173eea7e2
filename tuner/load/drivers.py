"""The interface between a worker process and its driver: offers, single requests and answers."""

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
        load: The whole load.
        seed: Seed of its arrivals, the same for all workers.
        worker: Index of this worker, from 0.
        workers: Number of workers.
        start_ns: Start time on the monotonic clock, in ns.
        request_timeout_s: Deadline of each request, in seconds; None: the plan's.
    """

    load: Load
    seed: int
    worker: int
    workers: int
    start_ns: int
    request_timeout_s: float | None = None

    @property
    def concurrency(self) -> int | None:
        """Number of requests that this worker keeps under way; None in an open loop."""
        if not isinstance(self.load, Concurrency):
            return None
        share, more = divmod(self.load.requests, self.workers)
        return share + (self.worker < more)

    def due_ns(self) -> Iterator[int]:
        """The due times of this worker's requests of an open loop, in ns: every `workers`-th of the schedule."""
        if isinstance(self.load, Concurrency):
            raise TypeError("a closed loop has no schedule")
        for offset_ns in islice(arrivals(self.load, self.seed), self.worker, None, self.workers):
            yield self.start_ns + offset_ns

    def first_of(self, count: int) -> int:
        """The index of this worker's first request, of `count` requests; workers begin at different requests."""
        return self.worker * count // self.workers

    def rotation(self, requests: tuple[Request, ...]) -> Iterator[Request]:
        """The requests in turn, for ever."""
        at = self.first_of(len(requests))
        while True:
            yield requests[at % len(requests)]
            at += 1


@dataclass(frozen=True)
class SingleRequest:
    """A single request outside of a load, whose whole answer is returned.

    Attributes:
        request: The request.
        timeout_s: Its deadline, in seconds; None: the plan's.
    """

    request: Request
    timeout_s: float | None = None


@dataclass(frozen=True)
class Answer:
    """The answer to a single request.

    Attributes:
        body: The serialised answer; the first of several responses.
        error: `CODE: message`; None: success.
    """

    body: bytes
    error: str | None = None


class Driver(Protocol):
    """Sends requests over one protocol, in a worker process."""

    def offer(self, offer: Offer, ledger: LedgerWriter) -> None:
        """Offer the load until `ledger.stop_ns` is set or the load is over, then drain and return.

        Nothing is recorded after `ledger.end`. `ledger.tick` is called at least 20 times a second.
        """

    def ask(self, request: Request, timeout_s: float | None = None) -> Answer:
        """Send one request and return its answer, within a deadline in seconds; None: the plan's."""

    def rest(self, descriptor: int) -> None:
        """Keep connections alive until a descriptor is readable."""

    def close(self) -> None:
        """Close all connections."""
