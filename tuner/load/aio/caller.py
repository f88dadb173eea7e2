"""The interface between an asyncio driver and a client library that sends one request at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tuner.load.drivers import Answer
from tuner.load.failures import describe
from tuner.load.workload import Request


@dataclass(frozen=True)
class Outcome:
    """How a request ended.

    Attributes:
        error: `CODE: message`; None: success.
        received: Bytes of the answer, or of all responses.
        responses_ns: Times of the responses on the monotonic clock, for a decoupled model.
    """

    error: str | None = None
    received: int = 0
    responses_ns: Sequence[int] = ()


@dataclass(frozen=True)
class Reply:
    """The whole reply to one request.

    Attributes:
        responses: Serialised `ModelInferResponse`s with outputs, in order; one for most models.
        error: `CODE: message`; None: success.
    """

    responses: tuple[bytes, ...]
    error: str | None = None

    @classmethod
    def of(cls, answer: Answer) -> Reply:
        """The reply of a model with one response to a request."""
        return cls(() if answer.error else (answer.body,), answer.error)


class Caller(Protocol):
    """Sends requests over its own connections. It is created and used on one loop.

    It has no deadlines: its user cancels late requests. A cancelled request must be aborted at once.
    """

    async def call(self, slot: int, request: Request) -> Outcome:
        """Send a request and wait for its end; errors are in the outcome, never raised.

        Args:
            slot: Index from 0; at most one request of a slot is under way.
            request: The request.
        """

    async def ask(self, request: Request) -> Answer:
        """Send a request and return its whole answer, or the first of several responses."""

    async def ask_whole(self, slot: int, request: Request) -> Reply:
        """Send a request of a slot (see `call`), and return all of its responses."""

    async def close(self) -> None:
        """Close all connections."""


def too_late(timeout_s: float) -> str:
    """The error of a request that has passed its deadline."""
    return describe("DEADLINE_EXCEEDED", f"no answer within {timeout_s:g} s")
