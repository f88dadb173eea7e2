from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tuner.load import ledger as ledgers
from tuner.load.ledger import MOST_MESSAGES, Full, LedgerWriter, OwnerGoneError, ledger
from tuner.load.reading import LedgerReader, read_samples


@contextmanager
def book(capacity: int | None = None) -> Iterator[tuple[LedgerWriter, LedgerReader]]:
    reader, descriptor = LedgerReader.make(capacity)
    with ledger(descriptor, os.getppid()) as writer:
        yield writer, reader


def test_what_is_noted_can_be_read() -> None:
    with book() as (writer, reader):
        writer.note(1 << 40, (1 << 40) + 5, 0, lag_us=-3, received=17)
        writer.note(2, (1 << 40) + 6, writer.outcome_of("INTERNAL: no"), lag_us=2**31 - 1, received=2**40)
        writer.note(3, (1 << 40) + 7, 0)
        samples = read_samples([reader])
    assert samples.sent_ns.tolist() == [1 << 40, 2, 3]
    assert samples.done_ns.tolist() == [(1 << 40) + 5, (1 << 40) + 6, (1 << 40) + 7]
    assert samples.ok.tolist() == [True, False, True]
    assert samples.lag_us.tolist() == [-3, 2**31 - 1, 0]
    # More than 4 GB is as good as 4 GB.
    assert samples.received.tolist() == [17, 2**32 - 1, 0]
    assert samples.errors == {"INTERNAL: no": 1}


def test_a_hot_path_may_note_many_and_count_them_later() -> None:
    with book(10) as (writer, reader):
        for place in range(ledgers.MOST_AT_ONCE):
            writer.sent_ns[place] = writer.done_ns[place] = place
        assert len(read_samples([reader])) == 0
        with pytest.raises(Full):
            writer.raise_count(ledgers.MOST_AT_ONCE)
        assert read_samples([reader]).sent_ns.tolist() == list(range(ledgers.MOST_AT_ONCE))


def test_a_full_ledger_says_so_after_the_last() -> None:
    with book(3) as (writer, reader):
        assert writer.capacity == 3
        writer.note(1, 2, 0)
        writer.note(3, 4, 0)
        with pytest.raises(Full):
            writer.note(5, 6, 0)
        assert read_samples([reader]).sent_ns.tolist() == [1, 3, 5]


def test_error_messages_have_their_bounds() -> None:
    with book() as (writer, reader):
        for number in range(3 * MOST_MESSAGES):
            writer.note(number, number, writer.outcome_of(f"INTERNAL: {number}"))
        writer.note(0, 1 << 40, writer.outcome_of("INTERNAL: 0"))
        errors = read_samples([reader]).errors
    assert errors == {
        "INTERNAL: 0": 2,
        **{f"INTERNAL: {number}": 1 for number in range(1, MOST_MESSAGES)},
        "other errors": 2 * MOST_MESSAGES,
    }


def test_long_messages_are_cut() -> None:
    with book() as (writer, reader):
        writer.note(0, 1, writer.outcome_of("é" * 5000))
        writer.note(0, 2, writer.outcome_of("short"))
        long, short = sorted(read_samples([reader]).errors, key=len, reverse=True)
    assert short == "short"
    assert 900 < len(long) < 2048
    assert set(long[:-1]) == {"é"}


def test_the_owner_hears_of_clocks_and_of_what_waits() -> None:
    with book() as (writer, reader):
        assert read_samples([reader]).cpu_s == 0
        began_s = time.process_time()
        while time.process_time() < began_s + 0.05:
            pass
        writer.tick(123, waiting=7)
        samples = read_samples([reader])
        assert 0.05 <= samples.cpu_s <= time.process_time()
        assert samples.waiting == 7
        assert reader.word(ledgers.NOTED_NS) == 123
        assert samples.wall_s >= 0.04


def test_the_clocks_stop_at_the_end() -> None:
    with book() as (writer, reader):
        writer.tick(1, waiting=3)
        writer.end()
        ended = read_samples([reader])
        began_ns = time.monotonic_ns()
        while time.monotonic_ns() < began_ns + 2_000_000:
            pass
        writer.end()
        again = read_samples([reader])
    assert (ended.wall_s, ended.cpu_s, ended.waiting) == (again.wall_s, again.cpu_s, 3)


def test_the_owner_says_when_to_stop() -> None:
    with book() as (writer, reader):
        assert writer.stop_ns == 0
        reader.stop(12345)
        assert writer.stop_ns == 12345


def test_a_writer_without_its_owner_ends() -> None:
    reader, descriptor = LedgerReader.make()
    with ledger(descriptor, os.getppid() + 1) as writer:
        with pytest.raises(OwnerGoneError):
            writer.tick(1)
        with pytest.raises(OwnerGoneError):
            writer.end()
    assert len(read_samples([reader])) == 0


def test_responses_are_noted_with_their_request() -> None:
    with book() as (writer, reader):
        writer.note_responses(5, 3, [10, 2**40])
        writer.note(1, 9, 0)
        writer.note_responses(0, 0, [])
        writer.note(2, 10, 0)
        writer.note_responses(11, 2, [30])
        responses = read_samples([reader], decoupled=True).responses
    assert responses
    assert responses.first_ns.tolist() == [5, 0]
    assert responses.count.tolist() == [3, 0]
    assert responses.gap_us.tolist() == [10, 2**32 - 1, 30]


def test_gaps_beyond_the_capacity_are_left_out() -> None:
    with book(4) as (writer, reader):
        writer.note_responses(5, 10, list(range(10)))
        writer.note(1, 9, 0)
        responses = read_samples([reader], decoupled=True).responses
    assert responses
    assert responses.gap_us.tolist() == [0, 1, 2, 3]


def resident_kb() -> int:
    """What this process and its shared memory take."""
    return int(Path("/proc/self/smaps_rollup").read_text().partition("Pss:")[2].split()[0])


def test_memory_grows_with_what_is_written_and_not_before() -> None:
    with book() as (writer, reader):
        before_kb = resident_kb()
        for number in range(100_000):
            writer.note(number, number, 0)
        grown_kb = resident_kb() - before_kb
        # 26 bytes each, in whole pages; there is room for 67 million.
        assert grown_kb < 10_000
        for _ in range(100):
            assert len(read_samples([reader])) == 100_000
        assert resident_kb() - before_kb < 10_000


def test_both_sides_hold_on_to_it_by_themselves() -> None:
    with book() as (writer, reader):
        writer.note(1, 2, 0)
    samples = read_samples([reader])
    del reader
    assert samples.done_ns.tolist() == [2]
