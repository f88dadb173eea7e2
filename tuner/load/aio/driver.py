"""The asyncio driver, over a client library that sends one request at a time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from tuner.load.aio.caller import Caller, Reply, too_late
from tuner.load.aio.offer import AsyncioOffer
from tuner.load.aio.sequencing import Mark, Place, make_supply
from tuner.load.drivers import Answer, Offer
from tuner.load.ledger import LedgerWriter
from tuner.load.workload import Plan, Request

# Longest time to close and cancel, in s.
_PATIENCE_S = 5.0

_T = TypeVar("_T")


class AsyncioDriver:
    """A `Driver` on top of a `Caller`.

    Args:
        plan: The requests, and where to send them.
        connect: Creates the caller on the running loop; it connects with the first request.
        mark: Adds sequence parameters to a request; None: sequences are not supported.

    Raises:
        ValueError: the plan has sequences, and there is no mark.
    """

    def __init__(self, plan: Plan, connect: Callable[[Plan], Caller], mark: Mark | None = None) -> None:
        if plan.workload.sequences and mark is None:
            raise ValueError(f"driver {plan.driver!r} cannot send sequences")
        self._plan = plan
        self._mark = mark
        # Sequence numbers over all offers, so that no id is reused: a failed sequence may still be alive in the server.
        self._serials = itertools.count()
        self._loop = asyncio.new_event_loop()

        async def connected() -> Caller:
            return connect(plan)

        self._caller = self._run(connected())

    def offer(self, offer: Offer, ledger: LedgerWriter) -> None:
        """See `Driver.offer`."""
        supply = make_supply(self._plan.workload, offer, self._serials, self._mark)

        async def hold() -> None:
            await AsyncioOffer(self._plan, offer, ledger, supply, self._caller).hold()

        self._run(hold())

    def ask(self, request: Request, timeout_s: float | None = None) -> Answer:
        """See `Driver.ask`. For a stateful model, the request is a sequence of its own."""
        sequences, timeout_s = self._plan.workload.sequences, timeout_s or self._plan.request_timeout_s
        if sequences and self._mark:
            place = Place(sequences.id_of(next(self._serials)), start=True, end=not sequences.iterative)
            request = self._mark(request, place)
        try:
            return self._run(asyncio.wait_for(self._caller.ask(request), timeout_s))
        except asyncio.TimeoutError:
            return Answer(b"", too_late(timeout_s))

    def ask_chains(self, chains: Sequence[Sequence[Request]]) -> list[list[Reply]]:
        """Send chains of requests: all chains at once, the requests of each one after the other. Returns whole replies.

        For a stateful model each chain is a sequence. A chain ends with its first failed request.
        """

        async def ask_all() -> list[list[Reply]]:
            return await asyncio.gather(*(self._ask_chain(slot, chain) for slot, chain in enumerate(chains)))

        return self._run(ask_all())

    async def _ask_chain(self, slot: int, chain: Sequence[Request]) -> list[Reply]:
        sequences, timeout_s = self._plan.workload.sequences, self._plan.request_timeout_s
        name = sequences.id_of(next(self._serials)) if sequences else 0
        replies: list[Reply] = []
        for at, request in enumerate(chain):
            marked = request
            if sequences and self._mark:
                end = at == len(chain) - 1 and not sequences.iterative
                marked = self._mark(request, Place(name, start=at == 0, end=end))
            try:
                reply = await asyncio.wait_for(self._caller.ask_whole(slot, marked), timeout_s)
            except asyncio.TimeoutError:
                reply = Reply((), too_late(timeout_s))
            replies.append(reply)
            if reply.error:
                break
        return replies

    def rest(self, descriptor: int) -> None:
        """See `Driver.rest`."""
        self._loop.add_reader(descriptor, self._loop.stop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.remove_reader(descriptor)

    def close(self) -> None:
        """See `Driver.close`; may be repeated."""
        if self._loop.is_closed():
            return
        try:
            self._run(asyncio.wait_for(self._caller.close(), _PATIENCE_S))
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            if left:
                self._run(asyncio.wait(left, timeout=_PATIENCE_S))
        finally:
            self._loop.close()

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return self._loop.run_until_complete(work)
