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

from tuner.core.lean import spare_client
from tuner.load.channel import Channel
from tuner.load.drivers import Ask, Driver, Offer
from tuner.load.ledger import Full, LedgerWriter, OwnerGoneError, ledger
from tuner.load.workload import Plan


class Done:
    """An offer is over, and nothing is under way."""


class Ready:
    """The worker has started and has its requests."""


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
