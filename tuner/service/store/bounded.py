"""Connections to PostgreSQL on which no statement waits for ever, also when the server is frozen."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg

Result = TypeVar("Result")


def connection_within(seconds: float) -> type[psycopg.Connection[Any]]:
    """A type of connections that are closed if the server does not answer a statement in time.

    PostgreSQL's own limits, such as `statement_timeout`, need a server that runs.

    Args:
        seconds: The longest wait for the answer to a statement.
    """

    class Bounded(psycopg.Connection[Any]):
        def wait(self, gen: Any, *arguments: Any, **more: Any) -> Any:
            try:
                return super().wait(_until(time.monotonic() + seconds, gen), *arguments, **more)
            except TimeoutError:
                # It is in the middle of a statement, and cannot be used again.
                self.close()
                raise psycopg.OperationalError(f"the server did not answer within {seconds:g} s") from None

    return Bounded


def _until(deadline: float, waiting: Generator[Any, Any, Result]) -> Generator[Any, Any, Result]:
    """The same generator of psycopg, which is resumed several times a second, up to a deadline.

    Raises:
        TimeoutError: it did not end in time.
    """
    ready = None
    while True:
        try:
            wanted = waiting.send(ready)
        except StopIteration as ended:
            result: Result = ended.value
            return result
        ready = yield wanted
        if not ready and time.monotonic() > deadline:
            raise TimeoutError
