from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from tuner.core.loads import Concurrency, Load, Replay, RequestRate
from tuner.load import ledger as ledgers
from tuner.load.aio import offer as offers
from tuner.load.aio.caller import Outcome, Reply
from tuner.load.aio.driver import AsyncioDriver
from tuner.load.aio.sequencing import Place
from tuner.load.drivers import Answer, Offer
from tuner.load.ledger import Full, LedgerWriter, OwnerGoneError
from tuner.load.pauses import pause_ns
from tuner.load.protocols import Samples
from tuner.load.reading import LedgerReader, read_samples
from tuner.load.workload import Plan, Request, Sequences, Workload
from tuner.options.endpoint import Endpoint

REQUESTS = tuple(Request(str(number).encode()) for number in range(3))
PLAN = Plan("grpcio", Endpoint("127.0.0.1:9"), Workload("m", (REQUESTS,)), 5)


class Peer:
    """Answers each request after a while, and remembers; a `Caller` without a network."""

    def __init__(
        self, answer: Callable[[Request], Outcome] = lambda _: Outcome(received=7), *, after_s: float = 0.005
    ) -> None:
        self.answer = answer
        self.after_s = after_s
        self.bodies: list[bytes] = []
        self.slots: set[int] = set()
        self.under_way: Counter[int] = Counter()
        self.most_under_way = 0
        self.cancelled = 0
        self.closed = False
        self.on_call: Callable[[], None] = lambda: None

    async def call(self, slot: int, request: Request) -> Outcome:
        self.bodies.append(request.body)
        self.slots.add(slot)
        self.under_way[slot] += 1
        assert self.under_way[slot] == 1
        self.most_under_way = max(self.most_under_way, self.under_way.total())
        self.on_call()
        try:
            await asyncio.sleep(self.after_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.under_way[slot] -= 1
        return self.answer(request)

    async def ask(self, request: Request) -> Answer:
        await asyncio.sleep(self.after_s)
        return Answer(request.body)

    async def ask_whole(self, slot: int, request: Request) -> Reply:
        outcome = await self.call(slot, request)
        return Reply((request.body, b"and more") if outcome.error is None else (), outcome.error)

    async def close(self) -> None:
        self.closed = True


def stateful(**sequences: float | None) -> Plan:
    return replace(PLAN, workload=replace(PLAN.workload, sequences=Sequences(**sequences)))  # type: ignore[arg-type]


def mark(request: Request, place: Place) -> Request:
    return replace(request, body=b"%d %d %d %s" % (int(place.sequence), place.start, place.end, request.body))


@contextmanager
def driving(peer: Peer, plan: Plan = PLAN) -> Iterator[AsyncioDriver]:
    driver = AsyncioDriver(plan, lambda _: peer, mark)
    try:
        yield driver
    finally:
        driver.close()


class Book(LedgerWriter):
    """Says by itself when it is time to end, and counts how often it is told of the time."""

    def __init__(
        self, descriptor: int, reader: LedgerReader, for_s: float | None, drain_s: float, requests: int
    ) -> None:
        super().__init__(descriptor)
        self.reader = reader
        self.requests = requests
        self.until_ns = None if for_s is None else time.monotonic_ns() + round(for_s * 1e9)
        self.drain_ns = round(drain_s * 1e9)
        self.ticks_s: list[float] = []

    @property
    def stop_ns(self) -> int:
        now_ns = time.monotonic_ns()
        over = self.control[ledgers.COUNT] >= self.requests or (self.until_ns and now_ns >= self.until_ns)
        if over and not super().stop_ns:
            self.reader.stop(now_ns + self.drain_ns)
        return super().stop_ns

    def tick(self, now_ns: int, waiting: int = 0) -> None:
        self.ticks_s.append(time.monotonic())
        super().tick(now_ns, waiting)


@contextmanager
def book(for_s: float | None = 0.3, *, drain_s: float = 1.0, requests: int = 1_000_000) -> Iterator[Book]:
    reader, descriptor = LedgerReader.make()
    writer = Book(descriptor, reader, for_s, drain_s, requests)
    os.close(descriptor)
    try:
        yield writer
    finally:
        writer.close()


def share(load: Load, worker: int = 0, workers: int = 1) -> Offer:
    return Offer(load, 0, worker, workers, time.monotonic_ns() + 1_000_000)


def offer(
    peer: Peer,
    load: Load,
    *,
    for_s: float | None = 0.3,
    drain_s: float = 1.0,
    requests: int = 1_000_000,
    plan: Plan = PLAN,
) -> tuple[Samples, float]:
    """What was noted, and how many seconds passed between the end of the load and that of the offer.

    Args:
        peer: Who answers.
        load: How much to offer it.
        for_s: When to end; None: the load does so by itself.
        drain_s: How long to wait for what is under way then.
        requests: End as soon as so many have been noted.
        plan: What to send.
    """
    with driving(peer, plan) as driver, book(for_s, drain_s=drain_s, requests=requests) as writer:
        driver.offer(share(load), writer)
        drained_s = (time.monotonic_ns() - writer.control[ledgers.ENDED_NS]) / 1e9
        return read_samples([writer.reader], decoupled=plan.workload.decoupled), drained_s


def test_a_closed_loop_keeps_every_slot_busy() -> None:
    peer = Peer()
    samples, _ = offer(peer, Concurrency(5), for_s=20, requests=100)
    assert peer.slots == set(range(5))
    assert peer.most_under_way == 5
    assert len(samples) + 5 >= len(peer.bodies) >= len(samples) >= 100
    assert (samples.received == 7).all()
    assert max(Counter(peer.bodies).values()) - min(Counter(peer.bodies).values()) <= 1


def test_what_is_under_way_at_the_end_is_drained_and_not_noted() -> None:
    peer = Peer(after_s=0.2)
    samples, drained_s = offer(peer, Concurrency(3), for_s=0.25, drain_s=60)
    assert len(peer.bodies) - len(samples) == 3
    assert peer.cancelled == 0
    assert drained_s < 30


def test_what_does_not_end_in_time_is_cancelled() -> None:
    peer = Peer(after_s=60)
    with driving(peer) as driver, book(0.1, drain_s=0.1) as writer:
        driver.offer(share(Concurrency(3)), writer)
        assert writer.stop_ns <= time.monotonic_ns() < writer.stop_ns + 30e9
        assert len(read_samples([writer.reader])) == 0
    assert peer.cancelled == 3


def test_a_request_fails_at_its_deadline_and_is_cancelled() -> None:
    peer = Peer(after_s=60)
    plan = replace(PLAN, request_timeout_s=0.1)
    samples, _ = offer(peer, Concurrency(2), for_s=20, requests=4, plan=plan)
    assert samples.errors == {"DEADLINE_EXCEEDED: no answer within 0.1 s": len(samples)}
    assert ((samples.done_ns - samples.sent_ns) / 1e9 >= 0.1).all()
    # Others follow.
    assert peer.cancelled >= len(samples) >= 4


def test_one_failure_is_retried_at_once_and_a_row_of_them_waits() -> None:
    peer = Peer(lambda _: Outcome("INTERNAL: no"), after_s=0)
    samples, _ = offer(peer, Concurrency(1), for_s=20, requests=6)
    gaps_ns = np.diff(samples.sent_ns)
    assert (gaps_ns >= [pause_ns(failures) for failures in range(1, len(samples))]).all()
    assert pause_ns(1) == 0
    assert samples.errors == {"INTERNAL: no": len(samples)}


def test_nobody_waits_for_the_end_of_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offers, "pause_ns", lambda failures: 60_000_000_000 * (failures > 1))
    _, drained_s = offer(Peer(lambda _: Outcome("INTERNAL: no"), after_s=0), Concurrency(1), for_s=0.1, drain_s=60)
    assert drained_s < 30


def test_an_open_loop_is_timed_from_when_requests_were_due() -> None:
    peer = Peer()
    offsets_ns = tuple(number * 3_700_000 for number in range(50))
    samples, _ = offer(peer, Replay("test", offsets_ns), for_s=None)
    sent_ns = np.sort(samples.sent_ns)
    assert (sent_ns - sent_ns[0]).tolist() == list(offsets_ns)
    assert (samples.lag_us >= 0).all()
    assert (samples.done_ns >= samples.sent_ns + 1_000 * samples.lag_us).all()


def test_an_open_loop_uses_a_slot_again_when_it_is_free() -> None:
    slots: list[int] = []
    # On a machine that stands still, many are due at once, but not each time.
    while not slots or (min(slots) > 20 and len(slots) < 20):
        peer = Peer(after_s=0.02)
        samples, _ = offer(peer, RequestRate(200, "constant"), for_s=20, requests=41)
        assert len(samples) > 40
        assert peer.slots == set(range(len(peer.slots)))
        slots.append(len(peer.slots))
    assert min(slots) <= 20


@pytest.mark.parametrize("plan", [PLAN, stateful(live=3)])
def test_it_goes_on_and_ends_where_more_is_due_than_anybody_can_send(plan: Plan) -> None:
    peer = Peer(after_s=0)
    samples, drained_s = offer(peer, RequestRate(1e7, "constant"), plan=plan, drain_s=60)
    assert samples.waiting > len(samples) > 20
    # None waits for its note until all is sent that is due.
    assert len(peer.bodies) - len(samples) < len(samples) / 4
    assert drained_s < 30


def test_a_load_that_ends_by_itself_waits_for_the_last_answer() -> None:
    peer = Peer(after_s=0.2)
    samples, _ = offer(peer, Replay("test", (0, 0, 10_000_000)), for_s=None)
    assert len(samples) == 3
    assert samples.wall_s > 0.2


def test_the_owner_hears_of_the_time_20_times_a_second() -> None:
    for peer, load in ((Peer(after_s=60), Concurrency(2)), (Peer(after_s=0), Concurrency(50))):
        with driving(peer) as driver, book(0.3, drain_s=0) as writer:
            driver.offer(share(load), writer)
            gaps_s = np.diff(writer.ticks_s)
        assert len(gaps_s) >= 2
        # A machine that stands still makes some of them longer.
        assert gaps_s.min() <= 0.05
        assert gaps_s.mean() > 0.015


def test_responses_are_noted_with_their_request() -> None:
    now_ns = time.monotonic_ns()
    peer = Peer(lambda _: Outcome(responses_ns=(now_ns, now_ns + 2_000_000, now_ns + 5_000_000)))
    plan = replace(PLAN, workload=replace(PLAN.workload, decoupled=True))
    samples, _ = offer(peer, Concurrency(1), plan=plan)
    assert samples.responses
    assert set(samples.responses.first_ns.tolist()) == {now_ns}
    assert set(samples.responses.count.tolist()) == {3}
    assert samples.responses.gap_us.tolist() == [2_000, 3_000] * len(samples)


def test_a_request_without_responses_has_its_first_when_it_ends() -> None:
    peer = Peer()
    plan = replace(PLAN, workload=replace(PLAN.workload, decoupled=True))
    samples, _ = offer(peer, Concurrency(1), plan=plan)
    assert samples.responses
    assert samples.responses.first_ns.tolist() == samples.done_ns.tolist()
    assert not samples.responses.count.any()


def test_a_full_ledger_ends_the_offer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "CAPACITY", 64)
    peer = Peer()
    with driving(peer) as driver, book(60) as writer:
        with pytest.raises(Full):
            driver.offer(share(Concurrency(4)), writer)
        # Others may end in the same turn.
        assert 64 <= writer.control[ledgers.COUNT] < 68
    assert peer.under_way.total() == 0


def test_an_offer_ends_when_its_owner_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer(after_s=60)
    with driving(peer) as driver, book(60) as writer:
        another = os.getppid() + 1
        peer.on_call = lambda: monkeypatch.setattr(os, "getppid", lambda: another)
        with pytest.raises(OwnerGoneError):
            driver.offer(share(Concurrency(4)), writer)
    assert peer.cancelled == 4


@pytest.mark.parametrize("load", [Concurrency(3), RequestRate(500)])
def test_a_caller_that_breaks_breaks_the_offer(load: Load) -> None:
    def answer(_: Request) -> Outcome:
        raise ZeroDivisionError

    peer = Peer(answer)
    with driving(peer) as driver, book(60) as writer, pytest.raises(ZeroDivisionError):
        driver.offer(share(load), writer)
    assert peer.under_way.total() == 0


def test_one_request_of_its_own_is_answered() -> None:
    with driving(Peer()) as driver:
        assert driver.ask(Request(b"what")) == Answer(b"what")


def test_one_request_of_its_own_has_a_deadline() -> None:
    with driving(Peer(after_s=60), replace(PLAN, request_timeout_s=0.05)) as driver:
        assert driver.ask(Request(b"what")) == Answer(b"", "DEADLINE_EXCEEDED: no answer within 0.05 s")


def test_it_serves_its_connections_while_it_rests() -> None:
    reading, writing = os.pipe()
    peer = Peer()
    seen: list[int] = []

    async def live() -> None:
        for number in range(3):
            seen.append(number)
            await asyncio.sleep(0.01)
        os.write(writing, b"!")

    with driving(peer) as driver:
        task = driver._loop.create_task(live())
        driver.rest(reading)
        driver.rest(reading)
        assert seen == [0, 1, 2]
        assert driver._loop.run_until_complete(task) is None
    os.close(reading)
    os.close(writing)


def test_it_closes_the_caller_once() -> None:
    peer = Peer()
    driver = AsyncioDriver(PLAN, lambda _: peer)
    driver.close()
    driver.close()
    assert peer.closed


def test_a_driver_that_knows_no_sequences_refuses_them() -> None:
    plan = replace(PLAN, workload=replace(PLAN.workload, sequences=Sequences()))
    with pytest.raises(ValueError, match="driver 'grpcio' cannot send sequences"):
        AsyncioDriver(plan, lambda _: Peer())


class Sequenced:
    """What a stateful server would say to a peer's requests."""

    def __init__(self, bodies: list[bytes]) -> None:
        self.lengths: dict[int, int] = {}
        self.ended: list[int] = []
        self.alive: set[int] = set()
        self.most_alive = 0
        for body in bodies:
            number, start, end, place = map(int, body.split())
            assert (number in self.alive) != bool(start)
            self.lengths[number] = self.lengths.get(number, 0) + 1
            assert place == (self.lengths[number] - 1) % len(REQUESTS)
            self.alive.add(number)
            self.most_alive = max(self.most_alive, len(self.alive))
            if end:
                self.alive.remove(number)
                self.ended.append(number)


@pytest.mark.parametrize("load", [Concurrency(4), RequestRate(1_500)])
def test_so_many_sequences_are_alive_and_all_of_them_end(load: Load) -> None:
    peer = Peer()
    samples, drained_s = offer(peer, load, for_s=20, requests=500, drain_s=60, plan=stateful(length=7, variation=0.3))
    seen = Sequenced(peer.bodies)
    assert seen.most_alive == 4
    assert not seen.alive
    assert samples.ok.all()
    # The last requests of those that were under way are not counted.
    assert 0 < len(peer.bodies) - len(samples) <= 8
    assert drained_s < 30
    whole = [seen.lengths[number] for number in seen.ended[:-4]]
    assert set(whole) == {5, 6, 7, 8, 9}


def test_requests_that_are_due_wait_for_a_sequence_with_nothing_under_way() -> None:
    peer = Peer(after_s=0.05)
    samples, _ = offer(peer, Replay("test", (0,) * 6), for_s=None, plan=stateful(live=2))
    assert peer.most_under_way == 2
    assert np.ptp(samples.sent_ns) == 0
    lag_ms = np.sort(samples.lag_us) / 1e3
    # Each but the first two waits for one of two that are under way, for 50 ms or more.
    assert (lag_ms[2:] >= lag_ms[:-2] + 49).all()
    assert not Sequenced(peer.bodies).alive


def test_the_sequence_that_has_been_idle_for_longest_comes_next() -> None:
    peer = Peer(after_s=0)
    offer(peer, RequestRate(100, "constant"), for_s=20, requests=12, plan=stateful(live=3))
    numbers = [int(body.split()[0]) for body in peer.bodies[:12]]
    assert numbers == [1, 2, 3] * 4


def test_a_sequence_can_be_a_whole_stream() -> None:
    peer = Peer(after_s=0)
    offer(peer, Concurrency(1), for_s=20, requests=50, plan=stateful(length=None))
    seen = Sequenced(peer.bodies)
    assert {seen.lengths[number] for number in seen.ended[:-1]} == {len(REQUESTS)}


def test_a_failed_request_ends_its_sequence() -> None:
    peer = Peer(lambda request: Outcome("INTERNAL: no" if request.body.split()[3] == b"1" else None), after_s=0)
    samples, _ = offer(peer, Concurrency(1), for_s=20, requests=8, plan=stateful(length=10, first_id=50))
    assert len(samples) > 6
    assert [tuple(map(int, body.split())) for body in peer.bodies[:4]] == [
        (50, 1, 0, 0),
        (50, 0, 0, 1),
        (51, 1, 0, 0),
        (51, 0, 0, 1),
    ]


def test_no_two_sequences_have_an_id_in_common() -> None:
    numbers: Counter[int] = Counter()
    for worker in range(2):
        peer = Peer(after_s=0.001)
        with driving(peer, stateful(length=3)) as driver:
            for _ in range(2):
                with book(0.1) as writer:
                    driver.offer(share(Concurrency(4), worker, 2), writer)
            driver.ask(Request(b""))
        numbers.update(number for number, start, _, _ in (map(int, body.split()) for body in peer.bodies) if start)
    assert set(numbers.values()) == {1}
    assert min(numbers) == 1


def test_a_request_of_its_own_is_a_sequence_of_its_own() -> None:
    with driving(Peer(), stateful(first_id=9)) as driver:
        assert [driver.ask(Request(b"x")).body for _ in range(2)] == [b"9 1 1 x", b"10 1 1 x"]
