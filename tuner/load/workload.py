"""Serialised requests, and how they form sequences. Without numpy, as workers do not import it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tuner.options.endpoint import Endpoint

_LONGEST_TEXT_ID = 128

DriverName = Literal["wire", "grpcio", "http"]
Compression = Literal["gzip", "deflate"]


@dataclass(frozen=True)
class Request:
    """One request, ready for the wire.

    Attributes:
        body: The serialised `ModelInferRequest`; over HTTP, the whole body.
        json_length: Over HTTP, the number of JSON bytes in the body; binary tensors follow.
        expected: Expected outputs, as raw bytes by name; empty: any answer without error is correct.
    """

    body: bytes
    json_length: int | None = None
    expected: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Sequences:
    """How the requests of a stateful model form sequences.

    Attributes:
        length: Mean number of requests in a sequence; None: a sequence is one stream of the workload, whole.
        variation: Lengths are uniform within this share around the mean.
        live: Sequences under way at once in an open loop; in a closed loop, the concurrency.
        first_id: The id of the first sequence; the following ids are consecutive.
        text_ids: Whether ids are sent as strings, as the model's control input requires.
        iterative: Whether each request is its own sequence, which the model ends (`iterative_sequence`). It is sent as
            a start, without an end, and no request follows it.
    """

    length: int | None = 20
    variation: float = 0.2
    live: int = 4
    first_id: int = 1
    text_ids: bool = False
    iterative: bool = False

    def id_of(self, number: int) -> int | str:
        """The id of a sequence by its number, from 0."""
        whole = self.first_id + number
        # Triton 2.51 passes a buffer of the maximum length to the model; zeros behind a shorter id would form a second
        # string, which it refuses. So ids have the maximum length.
        return str(whole).zfill(_LONGEST_TEXT_ID) if self.text_ids else whole


@dataclass(frozen=True)
class Workload:
    """Everything that may be sent to one model.

    Attributes:
        model: Its name.
        version: Its version; empty: the server's choice.
        streams: Requests in the order in which a sequence sends them; a stateless model gets all of them in turn.
        batch_size: Inferences in each request.
        sequences: How requests form sequences; None for a stateless model.
        decoupled: Whether the model is decoupled (any number of responses to a request).
    """

    model: str
    streams: tuple[tuple[Request, ...], ...]
    version: str = ""
    batch_size: int = 1
    sequences: Sequences | None = None
    decoupled: bool = False

    @property
    def requests(self) -> tuple[Request, ...]:
        """All requests, stream after stream."""
        return tuple(request for stream in self.streams for request in stream)


@dataclass(frozen=True)
class Plan:
    """The data that a worker process gets at its start: the requests, the endpoint, and the driver.

    Attributes:
        driver: `wire` (unary gRPC, our own framing), `grpcio` (streams, sequences, compression), or `http`.
        request_timeout_s: Deadline of each request, in seconds.
        connections: Number of connections of each process; `wire` opens more if the server limits streams.
        compression: Compression of request bodies; `grpcio` only.
    """

    driver: DriverName
    endpoint: Endpoint
    workload: Workload
    request_timeout_s: float
    connections: int = 1
    compression: Compression | None = None
