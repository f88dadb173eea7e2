"""The driver for unary gRPC at wire level."""

from __future__ import annotations

import time

from tuner.load.drivers import Answer, Offer
from tuner.load.failures import describe
from tuner.load.ledger import LedgerWriter
from tuner.load.wire.connection import TICK_S
from tuner.load.wire.header_blocks import request_block
from tuner.load.wire.loops import ClosedLoop, OpenLoop
from tuner.load.wire.pool import ConnectionPool
from tuner.load.wire.stream import PREFIX_BYTES, Framed, Stream
from tuner.load.workload import Plan, Request


class WireDriver:
    """A `Driver` for unary gRPC.

    Args:
        plan: The requests, and where to send them.
    """

    def __init__(self, plan: Plan) -> None:
        self._block = request_block(plan.endpoint)
        self._framed = tuple(Framed(request, self._block) for request in plan.workload.requests)
        self._timeout_s = plan.request_timeout_s
        self._pool = ConnectionPool(plan)

    def offer(self, offer: Offer, ledger: LedgerWriter) -> None:
        """See `Driver.offer`."""
        self._pool.timeout_s = offer.request_timeout_s or self._timeout_s
        kind = OpenLoop if offer.concurrency is None else ClosedLoop
        kind(self._pool, self._framed, offer, ledger).run()

    def ask(self, request: Request, timeout_s: float | None = None) -> Answer:
        """See `Driver.ask`."""
        self._pool.timeout_s = timeout_s = timeout_s or self._timeout_s
        stream = Stream(Framed(request, self._block), 0, time.monotonic_ns())
        stream.answer = bytearray()
        has_room = self._pool.submit(stream)
        while not self._pool.ended:
            self._pool.wait(TICK_S)
            now_ns = time.monotonic_ns()
            self._pool.expire(now_ns)
            if not has_room and now_ns > stream.sent_ns + timeout_s * 1e9:
                return Answer(
                    b"", describe("DEADLINE_EXCEEDED", f"the server accepted no request within {timeout_s:g} s")
                )
            has_room = has_room or self._pool.submit(stream)
        self._pool.ended.clear()
        return Answer(bytes(stream.answer[PREFIX_BYTES:]), stream.error)

    def rest(self, descriptor: int) -> None:
        """See `Driver.rest`."""
        self._pool.rest(descriptor)

    def close(self) -> None:
        """See `Driver.close`."""
        self._pool.close()
