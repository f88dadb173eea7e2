"""One offer by a driver in this process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tuner.core.loads import Load
from tuner.load.drivers import Driver, Offer
from tuner.load.ledger import ledger
from tuner.load.protocols import Samples
from tuner.load.reading import LedgerReader, read_samples
from tuner.load.wire.driver import WireDriver
from tuner.load.workload import Plan

_AT_MOST_S = 30.0


@contextmanager
def driving(plan: Plan) -> Iterator[WireDriver]:
    """The wire driver, in this process."""
    driver = WireDriver(plan)
    try:
        yield driver
    finally:
        driver.close()


def offer(
    driver: Driver,
    load: Load,
    enough: Callable[[Samples], bool],
    *,
    capacity: int | None = None,
    drain_s: float = 1.0,
    worker: int = 0,
    workers: int = 1,
) -> Samples:
    """Offer a load until what was noted is enough, it is over, or half a minute has passed.

    Args:
        driver: What offers it.
        load: How much.
        enough: Looks at what was noted so far, in a thread of its own.
        capacity: Of the ledger.
        drain_s: What is under way may end by itself in this time.
        worker: Which worker this process is.
        workers: Of how many.
    """
    reader, descriptor = LedgerReader.make(capacity)
    over = threading.Event()

    def watch() -> None:
        deadline = time.monotonic() + _AT_MOST_S
        while not enough(read_samples([reader])) and time.monotonic() < deadline and not over.wait(0.002):
            pass
        reader.stop(time.monotonic_ns() + round(drain_s * 1e9))

    watching = threading.Thread(target=watch)
    with ledger(descriptor, os.getppid()) as book:
        watching.start()
        try:
            driver.offer(Offer(load, 0, worker, workers, time.monotonic_ns() + 1_000_000), book)
        finally:
            over.set()
            watching.join()
    return read_samples([reader])


def count(number: int) -> Callable[[Samples], bool]:
    """So many requests have ended."""
    return lambda samples: len(samples) >= number


def never(_: Samples) -> bool:
    """The load ends by itself."""
    return False
