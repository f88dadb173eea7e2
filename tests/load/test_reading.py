from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tuner.load.ledger import LedgerWriter, ledger
from tuner.load.protocols import Samples
from tuner.load.reading import LedgerReader, read_samples


@contextmanager
def books(count: int) -> Iterator[tuple[list[LedgerWriter], list[LedgerReader]]]:
    writers, readers = [], []
    with ExitStack() as stack:
        for _ in range(count):
            reader, descriptor = LedgerReader.make(5000)
            readers.append(reader)
            writers.append(stack.enter_context(ledger(descriptor, os.getppid())))
        yield writers, readers


def rows(samples: Samples) -> list[tuple[int, ...]]:
    columns = (samples.done_ns, samples.sent_ns, samples.ok, samples.lag_us, samples.received)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def check(samples: Samples, before: Samples | None) -> None:
    """It is in order, adds up, and goes on from what was seen before."""
    assert (np.diff(samples.done_ns) >= 0).all()
    assert sum(samples.errors.values()) == np.count_nonzero(~samples.ok)
    if before is not None:
        assert rows(samples)[: len(before)] == rows(before)


# Which worker does what, and how much later than the one before.
steps = st.lists(
    st.tuples(st.sampled_from(["note", "note", "fail", "tick", "end", "look"]), st.integers(0, 2), st.integers(0, 3)),
    max_size=80,
)


@given(steps, st.integers(1, 3))
def test_a_look_never_changes_what_was_seen_before(taken: list[tuple[str, int, int]], count: int) -> None:
    with books(count) as (writers, readers):
        now_ns, ended, noted, seen = 1 << 40, set(), 0, None
        for number, (what, which, later_ns) in enumerate(taken):
            worker = which % count
            now_ns += later_ns
            if what == "look":
                samples = read_samples(readers)
                check(samples, seen)
                seen = samples
            elif worker not in ended:
                writer = writers[worker]
                if what in {"note", "fail"}:
                    outcome = writer.outcome_of(f"INTERNAL: {number % 3}") if what == "fail" else 0
                    writer.note(now_ns - number, now_ns, outcome, lag_us=number, received=worker)
                    noted += 1
                elif what == "tick":
                    writer.tick(now_ns)
                    # The clock has gone on when the next request ends.
                    now_ns += 1
                else:
                    writer.end()
                    ended.add(worker)
        for writer in writers:
            writer.end()
        last = read_samples(readers)
        check(last, seen)
        assert len(last) == noted


def test_of_one_worker_all_is_seen_at_once() -> None:
    with books(1) as ((writer,), readers):
        writer.note(1, 2, 0)
        assert len(read_samples(readers)) == 1


def test_of_several_what_ended_before_all_have_said_so() -> None:
    with books(2) as ((first, second), readers):
        first.note(1, 10, 0)
        first.note(1, 20, 0)
        first.tick(25)
        assert len(read_samples(readers)) == 0
        second.note(1, 15, 0)
        second.tick(18)
        assert read_samples(readers).done_ns.tolist() == [10, 15]
        second.tick(30)
        assert read_samples(readers).done_ns.tolist() == [10, 15, 20]


def test_who_has_ended_is_not_waited_for() -> None:
    """A worker's share of a recording may be over long before the others'."""
    with books(2) as ((first, second), readers):
        second.note(1, 5, 0)
        second.tick(6)
        second.end()
        first.note(1, 10, 0)
        first.tick(20)
        assert read_samples(readers).done_ns.tolist() == [5, 10]


def test_errors_of_several_are_added_up_by_their_message() -> None:
    with books(2) as (writers, readers):
        for number, writer in enumerate(writers):
            writer.note(1, 2, writer.outcome_of(f"INTERNAL: {number}"))
            writer.note(1, 3, writer.outcome_of("UNAVAILABLE: gone"))
            writer.end()
        samples = read_samples(readers)
    assert samples.errors == {"INTERNAL: 0": 1, "INTERNAL: 1": 1, "UNAVAILABLE: gone": 2}
    assert samples.processes == 2


def test_nothing_of_it_can_be_written_to() -> None:
    for count in (1, 2):
        with books(count) as (writers, readers):
            for writer in writers:
                writer.note(1, 2, 0)
                writer.end()
            samples = read_samples(readers)
        for array in (samples.sent_ns, samples.done_ns, samples.ok, samples.lag_us, samples.received):
            assert not array.flags.writeable


def test_an_offer_that_nobody_has_begun_is_empty() -> None:
    reader, descriptor = LedgerReader.make()
    os.close(descriptor)
    samples = read_samples([reader, reader])
    assert (len(samples), samples.wall_s, samples.cpu_s, samples.waiting) == (0, 0, 0, 0)


def test_looks_while_others_write() -> None:
    """Two threads note as fast as they can, as workers do: some requests at once, then the clock."""
    over = threading.Event()

    def write(writer: LedgerWriter) -> None:
        number = 0
        while number < 4000 and not over.is_set():
            now_ns = time.monotonic_ns()
            for _ in range(7):
                writer.note(number, now_ns, writer.outcome_of(f"INTERNAL: {number % 5}") if number % 3 == 0 else 0)
                number += 1
            writer.tick(now_ns)
        writer.end()

    with books(2) as (writers, readers):
        threads = [threading.Thread(target=write, args=(writer,)) for writer in writers]
        for thread in threads:
            thread.start()
        try:
            seen, looks = None, 0
            while any(thread.is_alive() for thread in threads):
                samples = read_samples(readers)
                check(samples, seen)
                seen, looks = samples, looks + 1
        finally:
            over.set()
            for thread in threads:
                thread.join()
        check(read_samples(readers), seen)
        assert len(read_samples(readers)) == 2 * 4004
