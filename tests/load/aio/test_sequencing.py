from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.core.loads import Concurrency
from tuner.load.aio.sequencing import Place, RequestSource, RequestSupply, draw_length, make_supply
from tuner.load.drivers import Offer
from tuner.load.workload import Request, Sequences, Workload

STREAMS = tuple(tuple(Request(b"%d%d" % (stream, place)) for place in range(stream + 2)) for stream in range(3))


class Marks:
    """Remembers the place of what was marked last."""

    def __init__(self) -> None:
        self.place = Place(0, start=False, end=False)

    def __call__(self, request: Request, place: Place) -> Request:
        self.place = place
        return request


def supply(
    sequences: Sequences | None, marks: Marks, *, worker: int = 0, workers: int = 1, seed: int = 0
) -> RequestSupply:
    offer = Offer(Concurrency(1), seed, worker, workers, 0)
    return make_supply(Workload("m", STREAMS, sequences=sequences), offer, itertools.count(), marks)


def sent(source: RequestSource, marks: Marks, count: int) -> list[tuple[int | str, bytes]]:
    """Sequence and body of each of the next requests."""
    return [(marks.place.sequence, request.body) for request in (source.next() for _ in range(count))]


def test_without_state_all_requests_go_in_turn_whoever_sends_them() -> None:
    marks = Marks()
    sources = supply(None, marks)
    first, second = sources.source(), sources.source()
    assert sources.live is None
    assert [source.next().body for source in (first, second) * 5] == [
        *(request.body for stream in STREAMS for request in stream),
        b"00",
    ]
    assert marks.place.sequence == 0
    first.failed()
    assert first.closing() is None


@given(length=st.integers(1, 40), variation=st.floats(0, 1), seed=st.integers())
def test_lengths_lie_around_the_mean(length: int, variation: float, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 (no secret)
    drawn = [draw_length(Sequences(length, variation), STREAMS[0], chance) for _ in range(20)]
    assert min(drawn) >= max(1, length * (1 - variation) - 1e-6)
    assert max(drawn) <= length * (1 + variation) + 1e-6


@pytest.mark.parametrize(
    ("length", "variation", "lengths"),
    [
        (20, 0.2, range(16, 25)),
        (10, 0.3, range(7, 14)),
        (3, 0.2, range(3, 4)),
        (5, 1.0, range(1, 10)),
        (1, 1.0, range(1, 2)),
    ],
)
def test_all_lengths_are_as_likely(length: int, variation: float, lengths: range) -> None:
    chance = random.Random(1)  # noqa: S311 (no secret)
    drawn = Counter(draw_length(Sequences(length, variation), STREAMS[0], chance) for _ in range(500 * len(lengths)))
    assert sorted(drawn) == list(lengths)
    assert all(400 < count < 600 for count in drawn.values())


def test_a_sequence_without_a_length_is_a_stream() -> None:
    marks = Marks()
    source = supply(Sequences(None, first_id=5), marks).source()
    assert sent(source, marks, 10) == [
        *((5, body) for body in (b"00", b"01")),
        *((6, body) for body in (b"10", b"11", b"12")),
        *((7, body) for body in (b"20", b"21", b"22", b"23")),
        (8, b"00"),
    ]


def test_a_sequence_that_is_longer_than_its_stream_begins_it_again() -> None:
    marks = Marks()
    source = supply(Sequences(5, 0.0), marks).source()
    assert sent(source, marks, 6) == [(1, b"00"), (1, b"01"), (1, b"00"), (1, b"01"), (1, b"00"), (2, b"10")]


def test_the_first_and_the_last_of_a_sequence_say_so() -> None:
    marks = Marks()
    source = supply(Sequences(3, 0.0), marks).source()
    flags = [(marks.place.start, marks.place.end) for _ in range(6) if source.next()]
    assert flags == [(True, False), (False, False), (False, True)] * 2


def test_a_sequence_of_one_is_the_first_and_the_last() -> None:
    marks = Marks()
    supply(Sequences(1), marks).source().next()
    assert marks.place == Place(1, start=True, end=True)


def test_what_has_begun_is_closed_once() -> None:
    marks = Marks()
    source = supply(Sequences(3, 0.0), marks).source()
    assert source.closing() is None
    source.next()
    request = source.closing()
    assert request
    assert (request.body, marks.place) == (b"01", Place(1, start=False, end=True))
    assert source.closing() is None
    sent(source, marks, 3)
    assert marks.place == Place(2, start=False, end=True)
    assert source.closing() is None


def test_a_sequence_that_has_failed_is_neither_gone_on_with_nor_closed() -> None:
    marks = Marks()
    source = supply(Sequences(3, 0.0), marks).source()
    source.next()
    source.failed()
    assert source.closing() is None
    source.next()
    assert marks.place == Place(2, start=True, end=False)


def test_workers_have_ids_and_live_sequences_of_their_own() -> None:
    numbers = []
    for worker in range(3):
        marks = Marks()
        share = supply(Sequences(1, live=4, first_id=10), marks, worker=worker, workers=3)
        numbers.append([number for number, _ in sent(share.source(), marks, 3)])
        assert share.live == (2 if worker == 0 else 1)
    assert numbers == [[10, 13, 16], [11, 14, 17], [12, 15, 18]]
    # What falls due to it cannot wait for ever.
    assert supply(Sequences(1, live=1), Marks(), worker=2, workers=3).live == 1


def test_the_seed_decides_on_lengths() -> None:
    def starts(seed: int, worker: int) -> list[int]:
        marks = Marks()
        source = supply(Sequences(10, 0.5), marks, seed=seed, worker=worker, workers=2).source()
        return [place for place in range(200) if source.next() and marks.place.start]

    assert starts(1, 0) == starts(1, 0)
    assert len({tuple(starts(seed, worker)) for seed in (1, 2) for worker in (0, 1)}) == 4


def test_requests_of_an_iterative_model_are_starts_of_sequences_of_their_own() -> None:
    marks = Marks()
    starts = supply(Sequences(iterative=True, first_id=10), marks, worker=1, workers=2)
    assert starts.live is None
    first, second = starts.source(), starts.source()
    places = [marks.place for source in (first, second, first) if source.next()]
    assert places == [Place(number, start=True, end=False) for number in (11, 13, 15)]
    first.failed()
    assert first.closing() is None
    bodies = [request.body for request in (second.next() for _ in range(9))]
    assert set(bodies) == {request.body for stream in STREAMS for request in stream}


def test_ids_of_text_are_as_long_as_they_can_be() -> None:
    marks = Marks()
    source = supply(Sequences(1, first_id=41, text_ids=True), marks).source()
    names = [name for name, _ in sent(source, marks, 2)]
    assert [(len(str(name)), int(name)) for name in names] == [(128, 41), (128, 42)]
    assert all(isinstance(name, str) for name in names)
