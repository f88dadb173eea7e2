"""The seam between a driver on an asyncio loop and a client library that sends one request at a time."""

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
        error: `CODE: message`, or None when all is well.
        received: Bytes of the answer; of several responses, all together.
        responses_ns: When each response was there, on the monotonic clock; only of a model that may give any number.
    """

    error: str | None = None
    received: int = 0
    responses_ns: Sequence[int] = ()


@dataclass(frozen=True)
class Reply:
    """All that came back for one request.

    Attributes:
        responses: Serialised `ModelInferResponse`s that hold outputs, in their order; of most models, one.
        error: `CODE: message`, or None when all is well.
    """

    responses: tuple[bytes, ...]
    error: str | None = None

    @classmethod
    def of(cls, answer: Answer) -> Reply:
        """The reply of a model that gives one response to a request."""
        return cls(() if answer.error else (answer.body,), answer.error)


class Caller(Protocol):
    """Sends requests over connections of its own. Its methods run on one loop, and it is made there.

    It keeps no deadline: whoever awaits cancels what takes too long, and then nothing of it must be left under way.
    """

    async def call(self, slot: int, request: Request) -> Outcome:
        """Send a request and wait for its end; what goes wrong is in the outcome, and never raised.

        Args:
            slot: From 0; no two requests of one slot are ever under way at once.
            request: What to send.
        """

    async def ask(self, request: Request) -> Answer:
        """Send a request and bring its answer whole; of several responses, the first."""

    async def ask_whole(self, slot: int, request: Request) -> Reply:
        """Send a request of a slot (see `call`), and bring all of its responses."""

    async def close(self) -> None:
        """Close all connections."""


def too_late(timeout_s: float) -> str:
    """What is said of a request that has passed its deadline."""
    return describe("DEADLINE_EXCEEDED", f"no answer within {timeout_s:g} s")
