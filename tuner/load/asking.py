"""Asks a few of the workload's requests beside any load, for their whole answers; several lines of them at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace

from tuner.load.aio.caller import Reply
from tuner.load.aio.grpcio_driver import GrpcioDriver
from tuner.load.workload import Plan, Request, Workload

Lines = tuple[tuple[Request, ...], ...]
"""Requests that go one after the other, line by line; of a stateful model, a line is a sequence."""

Ask = Callable[[Sequence[Sequence[Request]]], list[list[Reply]]]
"""Sends lines, all at once, and brings the replies of each; a request that fails is the last of its line."""

_MOST_REQUESTS = 16
_MOST_SEQUENCES = 4
_LONGEST_SEQUENCE = 64


def some_of(workload: Workload, *, made_up: bool) -> Lines:
    """A few requests that stand for all of them, always the same.

    Args:
        workload: All of them.
        made_up: Whether their tensors are, so that those of a sequence may come in any order.

    Returns:
        Lines of one request each, from all over the workload. Of a stateful model, sequences: of a file the first
        streams, and of what is made up each another part of it, so that no two live ones are alike.
    """
    if workload.sequences is None or workload.sequences.iterative:
        requests = workload.requests
        return tuple((request,) for request in requests[:: max(1, len(requests) // _MOST_REQUESTS)][:_MOST_REQUESTS])
    length = workload.sequences.length
    if made_up:
        (pool,) = workload.streams
        starts = range(0, len(pool), max(1, len(pool) // _MOST_SEQUENCES))
        streams = tuple(pool[start:] + pool[:start] for start in starts)
    else:
        streams = workload.streams
    return tuple(_cut(stream, length or len(stream)) for stream in streams[:_MOST_SEQUENCES])


@contextmanager
def asking(plan: Plan) -> Iterator[Ask]:
    """Connect as a plan says, in this process; its load, if it offers one, is not concerned.

    The connection is that of the client libraries, also where the load goes over our own framing: both get the same
    answers (`tuner.load.agreement`), and here nothing is timed.
    """
    if plan.endpoint.protocol == "http":
        from tuner.load.aio.http_driver import HttpDriver  # noqa: PLC0415 (aiohttp takes a while, and few need it)

        with closing(HttpDriver(plan)) as over_http:
            yield over_http.ask_lines
        return
    with closing(GrpcioDriver(replace(plan, connections=1))) as over_grpc:
        yield over_grpc.ask_lines


def _cut(stream: tuple[Request, ...], length: int) -> tuple[Request, ...]:
    """So many of a stream's requests, over and over."""
    return tuple(stream[at % len(stream)] for at in range(min(length, _LONGEST_SEQUENCE)))
