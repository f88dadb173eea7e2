"""What is sent: requests that are ready for the wire, and how they go together. Needs no numpy, as workers do not."""

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
        json_length: Over HTTP, how many bytes of the body are JSON; binary tensors follow.
        expected: Outputs that a right answer has, as raw bytes by name; empty: any answer without error is right.
    """

    body: bytes
    json_length: int | None = None
    expected: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Sequences:
    """How a stateful model's requests go together.

    Attributes:
        length: Mean number of requests in a sequence; None: a sequence is one stream of the workload, whole.
        variation: Lengths lie evenly within this share around the mean.
        live: Sequences under way at once in an open loop; in a closed loop, it is the concurrency.
        first_id: The id of the first sequence; others follow.
        text_ids: Whether ids are sent as strings, for a model whose control input wants them so.
        iterative: Whether each request is a sequence of its own that the model ends (`iterative_sequence`): it is sent
            as a start, without an end, and nothing follows it.
    """

    length: int | None = 20
    variation: float = 0.2
    live: int = 4
    first_id: int = 1
    text_ids: bool = False
    iterative: bool = False

    def id_of(self, number: int) -> int | str:
        """The id of a sequence, counted from 0."""
        whole = self.first_id + number
        # Triton 2.51 hands a model a buffer of the longest id that there can be, and the rest of it, all zeros, makes a
        # second string, which it then refuses; so ids are as long as they can be.
        return str(whole).zfill(_LONGEST_TEXT_ID) if self.text_ids else whole


@dataclass(frozen=True)
class Workload:
    """Everything that may be sent to one model.

    Attributes:
        model: Its name.
        version: Its version; empty: the server's choice.
        streams: Requests in the order in which a sequence sends them; a model without state gets all of them in turn.
        batch_size: Inferences in each request.
        sequences: How requests go together, for a stateful model.
        decoupled: Whether the model may give any number of responses to a request.
    """

    model: str
    streams: tuple[tuple[Request, ...], ...]
    version: str = ""
    batch_size: int = 1
    sequences: Sequences | None = None
    decoupled: bool = False

    @property
    def requests(self) -> tuple[Request, ...]:
        """All of them, stream after stream."""
        return tuple(request for stream in self.streams for request in stream)


@dataclass(frozen=True)
class Plan:
    """What a worker process gets when it starts: where to send what, and how.

    Attributes:
        driver: `wire` (unary gRPC, our own framing), `grpcio` (streams, sequences, compression), or `http`.
        request_timeout_s: Deadline of each request; past it, it has failed.
        connections: How many to spread the requests over, for each process; `wire` opens more
            where a peer's limits ask for it.
        compression: Of request bodies; `grpcio` only.
    """

    driver: DriverName
    endpoint: Endpoint
    workload: Workload
    request_timeout_s: float
    connections: int = 1
    compression: Compression | None = None
