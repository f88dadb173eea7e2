"""Threads that last as long as a context."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def running(work: Callable[[threading.Event], None], name: str) -> Iterator[None]:
    """Run `work` in a thread; it must return soon after the event is set, at the end of the context.

    The thread is a daemon, so that an error elsewhere never keeps the process alive.
    """
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(stop,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
