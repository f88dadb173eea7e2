"""A worker: a separate process that offers load, so that nothing else in the client delays it.

It starts quickly: no driver imports numpy, and the wire driver does not import gRPC.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import sys

from tuner.core.lean import spare_client
from tuner.load.drivers import Driver, Offer, SingleRequest
from tuner.load.ledger import Full, LedgerWriter, OwnerGoneError, ledger
from tuner.load.worker_channel import Channel
from tuner.load.workload import Plan


class Done:
    """Message to the owner: the offer is over, and no request is under way."""


class Ready:
    """Message to the owner: the worker has started, and has its requests."""


def make_driver(plan: Plan) -> Driver:
    """The driver of a plan. Drivers are imported here, as each needs other libraries."""
    if plan.driver == "wire":
        from tuner.load.wire.driver import WireDriver  # noqa: PLC0415 (see above)

        return WireDriver(plan)
    if plan.driver == "grpcio":
        from tuner.load.aio.grpcio_driver import GrpcioDriver  # noqa: PLC0415 (see above)

        return GrpcioDriver(plan)
    from tuner.load.aio.http_driver import HttpDriver  # noqa: PLC0415 (see above)

    return HttpDriver(plan)


def work(channel: Channel) -> None:
    """Execute the owner's commands until the owner ends."""
    owner = os.getppid()
    plan, _ = channel.receive()
    driver = make_driver(plan)
    try:
        channel.send(Ready())
        while True:
            driver.rest(channel.fileno())
            command, descriptors = channel.receive()
            if isinstance(command, SingleRequest):
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
    # A garbage collection during a load would look like a slow request.
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
    """The entry point of the process; `argv[1]` is the descriptor of its end of the channel."""
    # The owner handles Ctrl-C at the terminal. When the owner ends, the channel is closed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _be_punctual()
    spare_client()
    with Channel(socket.socket(fileno=int(sys.argv[1]))) as channel:
        work(channel)
    # Skip the clean-up of libraries.
    os._exit(0)


def _be_punctual() -> None:
    """Set the timer slack to 1 ns, so that waits do not end up to 50 us late (Linux's default)."""
    set_timer_slack, shortest_ns = 29, 1
    ctypes.CDLL(None).prctl(set_timer_slack, shortest_ns, 0, 0, 0)
