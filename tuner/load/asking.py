"""Sends a few of the workload's requests outside of any load, and returns their whole answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace

from tuner.load.aio.caller import Reply
from tuner.load.aio.grpcio_driver import GrpcioDriver
from tuner.load.workload import Plan, Request, Workload

RequestChains = tuple[tuple[Request, ...], ...]
"""Chains of requests. Requests of one chain are sent one after the other. For a stateful model, a chain is a
sequence."""

Ask = Callable[[Sequence[Sequence[Request]]], list[list[Reply]]]
"""Sends all chains at once, and returns the replies of each; a chain ends with its first failed request."""

_MOST_REQUESTS = 16
_MOST_SEQUENCES = 4
_LONGEST_SEQUENCE = 64


def some_of(workload: Workload, *, made_up: bool) -> RequestChains:
    """A few requests that represent the workload, always the same ones.

    Args:
        workload: All requests.
        made_up: Whether their tensors are generated, so that a sequence may use them in any order.

    Returns:
        At most 16 chains of one request each, spread over the workload. For a stateful model, at most 4 sequences. They
        are the first streams of a file, or different parts of generated data, so that live sequences differ.
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
    """Connect to the endpoint of a plan, in this process, beside the connections of its load.

    The connection uses the client libraries, even if the load uses our own framing. Both get the same answers
    (`tuner.load.agreement`), and these requests are not timed.
    """
    if plan.endpoint.protocol == "http":
        from tuner.load.aio.http_driver import HttpDriver  # noqa: PLC0415 (aiohttp takes a while, and few need it)

        with closing(HttpDriver(plan)) as over_http:
            yield over_http.ask_chains
        return
    with closing(GrpcioDriver(replace(plan, connections=1))) as over_grpc:
        yield over_grpc.ask_chains


def _cut(stream: tuple[Request, ...], length: int) -> tuple[Request, ...]:
    """The first `length` requests of a stream, repeated as needed; at most 64."""
    return tuple(stream[at % len(stream)] for at in range(min(length, _LONGEST_SEQUENCE)))
