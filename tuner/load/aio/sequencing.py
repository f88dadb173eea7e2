"""Chooses the next request: in turn for a stateless model, or the next one of a sequence."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from tuner.load.drivers import Offer
from tuner.load.workload import Request, Sequences, Workload


@dataclass(frozen=True)
class Place:
    """The position of a request in its sequence.

    Attributes:
        sequence: The sequence's id.
        start: Whether it is the first.
        end: Whether it is the last.
    """

    sequence: int | str
    start: bool
    end: bool


Mark = Callable[[Request, Place], Request]
"""Adds sequence parameters to a request, for a protocol."""


class RequestSource(Protocol):
    """A source of requests that are sent one after another."""

    def next(self) -> Request:
        """The next request; the previous one has been answered."""

    def failed(self) -> None:
        """Called if the last request has failed."""

    def closing(self) -> Request | None:
        """The request that ends the open sequence; None: there is none."""


class RequestSupply(Protocol):
    """Creates the request sources of one offer."""

    @property
    def live(self) -> int | None:
        """Number of sources in an open loop; None: any number."""

    def source(self) -> RequestSource:
        """A new source."""


def make_supply(workload: Workload, offer: Offer, serials: Iterator[int], mark: Mark | None) -> RequestSupply:
    """The supply of requests for one offer.

    Args:
        workload: All requests.
        offer: The offer.
        serials: Numbers that no earlier sequence of this worker had, from 0.
        mark: Adds sequence parameters to a request; None: not supported.

    Raises:
        ValueError: the workload has sequences, and there is no mark.
    """
    if workload.sequences is None:
        return _Turns(offer.rotation(workload.requests))
    if mark is None:
        raise ValueError("this driver cannot send sequences")
    if workload.sequences.iterative:
        return _Starts(workload, offer, serials, mark)
    return _SequenceSupply(workload.streams, workload.sequences, offer, serials, mark)


def draw_length(sequences: Sequences, stream: tuple[Request, ...], chance: random.Random) -> int:
    """The length of the next sequence in requests, at least 1."""
    if sequences.length is None:
        return len(stream)
    # Tolerate rounding errors just below a whole number.
    spread = min(int(sequences.length * sequences.variation + 1e-9), sequences.length - 1)
    return chance.randint(sequences.length - spread, sequences.length + spread)


class _Turns:
    """All requests in turn, shared by all slots."""

    live = None

    def __init__(self, rotation: Iterator[Request]) -> None:
        self._rotation = rotation

    def source(self) -> _Turns:
        return self

    def next(self) -> Request:
        return next(self._rotation)

    def failed(self) -> None:
        pass

    def closing(self) -> None:
        pass


class _Starts:
    """All requests in turn, each starting a sequence that the model ends (`iterative_sequence`)."""

    live = None

    def __init__(self, workload: Workload, offer: Offer, serials: Iterator[int], mark: Mark) -> None:
        self._rotation = offer.rotation(workload.requests)
        self._sequences = workload.sequences or Sequences()
        self._offer = offer
        self._serials = serials
        self._mark = mark

    def source(self) -> _Starts:
        return self

    def next(self) -> Request:
        number = _number(self._offer, self._serials)
        return self._mark(next(self._rotation), Place(self._sequences.id_of(number), start=True, end=False))

    def failed(self) -> None:
        pass

    def closing(self) -> None:
        pass


def _number(offer: Offer, serials: Iterator[int]) -> int:
    """The number of the next sequence. Workers interleave numbers, which stay small, as ids may have 32 bits."""
    return offer.worker + offer.workers * next(serials)


@dataclass(frozen=True)
class _Sequence:
    name: int | str
    stream: tuple[Request, ...]
    length: int


class _SequenceSupply:
    """Sequences with their own ids, over the streams in turn."""

    def __init__(
        self,
        streams: tuple[tuple[Request, ...], ...],
        sequences: Sequences,
        offer: Offer,
        serials: Iterator[int],
        mark: Mark,
    ) -> None:
        self._streams = streams
        self._sequences = sequences
        self._offer = offer
        self._serials = serials
        self._mark = mark
        self._chance = random.Random(f"{offer.seed} {offer.worker}")  # noqa: S311 (no secret)

    @property
    def live(self) -> int:
        """This worker's share of live sequences, at least one, so that its due requests can be sent."""
        share, more = divmod(self._sequences.live, self._offer.workers)
        return max(1, share + (self._offer.worker < more))

    def source(self) -> _SequenceSource:
        return _SequenceSource(self._begin, self._mark)

    def _begin(self) -> _Sequence:
        number = _number(self._offer, self._serials)
        stream = self._streams[number % len(self._streams)]
        return _Sequence(self._sequences.id_of(number), stream, draw_length(self._sequences, stream, self._chance))


class _SequenceSource:
    """One sequence after another."""

    def __init__(self, begin: Callable[[], _Sequence], mark: Mark) -> None:
        self._begin = begin
        self._mark = mark
        self._sequence: _Sequence | None = None
        self._sent = 0

    def next(self) -> Request:
        sequence = self._sequence
        if sequence is None or self._sent == sequence.length:
            self._sequence = sequence = self._begin()
            self._sent = 0
        return self._send(sequence, end=self._sent == sequence.length - 1)

    def failed(self) -> None:
        """Abandon the sequence, as later requests depend on the failed one."""
        self._sequence = None

    def closing(self) -> Request | None:
        sequence, self._sequence = self._sequence, None
        if sequence is None or self._sent == sequence.length:
            return None
        return self._send(sequence, end=True)

    def _send(self, sequence: _Sequence, *, end: bool) -> Request:
        request = sequence.stream[self._sent % len(sequence.stream)]
        place = Place(sequence.name, start=self._sent == 0, end=end)
        self._sent += 1
        return self._mark(request, place)
