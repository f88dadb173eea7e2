"""A worker: a process of its own that offers load, so that nothing else of the client's ever holds it up.

It is light to start: no driver imports numpy, and the wire driver not gRPC.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from tuner.lean import spare_client
from tuner.load.arrivals import arrivals
from tuner.load.channel import Channel
from tuner.load.ledger import Full, LedgerWriter, OwnerGoneError, ledger
from tuner.load.loads import Concurrency, Load
from tuner.load.workload import Plan, Request


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


class Done:
    """An offer is over, and nothing is under way."""


class Ready:
    """The worker has started and has its requests."""


class Driver(Protocol):
    """What a worker does its work with."""

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


def make_driver(plan: Plan) -> Driver:
    """The driver that a plan asks for. Imported here, as each needs libraries that the others do not."""
    if plan.driver == "wire":
        from tuner.load.wire.driver import WireDriver  # noqa: PLC0415 (see above)

        return WireDriver(plan)
    if plan.driver == "grpcio":
        from tuner.load.aio.grpcio_driver import GrpcioDriver  # noqa: PLC0415 (see above)

        return GrpcioDriver(plan)
    from tuner.load.aio.http_driver import HttpDriver  # noqa: PLC0415 (see above)

    return HttpDriver(plan)


def work(channel: Channel) -> None:
    """Do as the owner says until it is gone."""
    owner = os.getppid()
    plan, _ = channel.receive()
    driver = make_driver(plan)
    try:
        channel.send(Ready())
        while True:
            driver.rest(channel.fileno())
            command, descriptors = channel.receive()
            if isinstance(command, Ask):
                channel.send(driver.ask(command.request, command.timeout_s))
                continue
            with ledger(descriptors[0], owner) as book:
                _offer(driver, command, book)
            channel.send(Done())
    except (EOFError, ConnectionError, OwnerGoneError):
        pass
    finally:
        driver.close()


def _offer(driver: Driver, offer: Offer, book: LedgerWriter) -> None:
    # A collection in the middle of a window would look like a slow request.
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        driver.offer(offer, book)
    except Full:
        pass
    finally:
        book.end()
        gc.enable()
        gc.unfreeze()


def main() -> None:
    """The process: `argv[1]` is the descriptor of its end of the channel."""
    # Ctrl-C at the terminal is for the owner, whose end is seen at the channel.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _be_punctual()
    spare_client()
    with Channel(socket.socket(fileno=int(sys.argv[1]))) as channel:
        work(channel)
    # What libraries would tidy up now is gone with the process.
    os._exit(0)


def _be_punctual() -> None:
    """Be woken when a wait is over, and not up to 50 us later, as Linux likes to."""
    set_timer_slack, shortest_ns = 29, 1
    ctypes.CDLL(None).prctl(set_timer_slack, shortest_ns, 0, 0, 0)
