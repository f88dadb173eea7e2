from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from support.connections import raw_answer
from support.http2_peer import Http2Peer, OnRequest, Talk, echo, keep_silent
from support.offers import count, driving, never, offer
from tritonclient.grpc import service_pb2

from tuner.core.loads import Concurrency, Load, Replay, RequestRate
from tuner.load.protocols import Samples
from tuner.load.wire import frames
from tuner.load.workload import Request

MOST_STREAMS = SettingCodes.MAX_CONCURRENT_STREAMS
LAST_STREAM = 2**31 - 1


class Peer(Http2Peer):
    """Sends nothing but answers, so that the hot path of a closed loop goes on."""

    def __init__(
        self,
        on_request: OnRequest = echo,
        *,
        settings: Mapping[SettingCodes, int] | None = None,
        room: int = 1 << 30,
    ) -> None:
        super().__init__(on_request, settings=settings, step=0, room=room)


def in_bursts(size: int) -> OnRequest:
    """Answers so many requests together."""

    def serve(talk: Talk, _stream: int) -> None:
        waiting = [number for number, asked in talk.side.asked.items() if asked.ended and asked.reset is None]
        for number in waiting if len(waiting) >= size else ():
            echo(talk, number)

    return serve


def contents_of(talk: Talk) -> list[bytes]:
    return [bytes(talk.side.asked[number].body[5:]) for number in sorted(talk.side.asked)]


def answer_of(talk: Talk, stream: int) -> bytes:
    """As it comes from the peer, also where h2 would not send it."""
    return raw_answer(stream, b"answer", encoder=talk.side.h2.encoder)


def answer_and_remember(talk: Talk, stream: int) -> None:
    talk.side.answer(stream, b"answer")


@pytest.mark.parametrize("load", [Concurrency(4), RequestRate(2_000, "constant")])
def test_requests_are_sent_in_turn_and_each_worker_begins_at_another(load: Load) -> None:
    contents = [b"%d" % number for number in range(6)]
    for worker in range(3):
        with Peer(answer_and_remember) as peer, driving(peer.plan(*contents)) as driver:
            offer(driver, load, count(100), worker=worker, workers=3)
            sent = contents_of(peer.talks[0])
        assert sent[:60] == [contents[(2 * worker + at) % 6] for at in range(60)]


def test_a_closed_loop_holds_its_concurrency() -> None:
    most: list[int] = []

    def serve(talk: Talk, stream: int) -> None:
        most.append(len(talk.side.asked))
        echo(talk, stream)

    with Peer(serve) as peer, driving(peer.plan()) as driver:
        samples = offer(driver, Concurrency(7), count(300))
        assert samples.errors == {}
        assert (np.sort(samples.done_ns) == samples.done_ns).all()
        assert (samples.received == 5 + len(b"request")).all()
        assert len(samples) <= peer.count <= len(samples) + 7
    assert max(most) <= 7


@pytest.mark.parametrize("load", [Concurrency(8), RequestRate(3_000)])
def test_a_full_ledger_ends_an_offer_with_nothing_under_way(load: Load) -> None:
    with Peer(in_bursts(8)) as peer, driving(peer.plan()) as driver:
        samples = offer(driver, load, never, capacity=50)
        assert 50 <= len(samples) < 58
        assert samples.errors == {}
        assert driver._pool.under_way == 0
        # Nothing of it turns up in the next.
        later = offer(driver, load, count(20))
        assert later.sent_ns.min() > samples.done_ns.max()
        assert later.errors == {}
        assert peer.accepted == 1


@pytest.mark.parametrize("left", [30, 70_000])
def test_when_the_numbers_of_streams_run_out_another_connection_goes_on(left: int) -> None:
    """Where there are still some thousands left, only the hot path has to step aside."""

    def serve(talk: Talk, stream: int) -> None:
        # The last four that come together would have one successor too many.
        in_bursts(4 if stream < LAST_STREAM - 5 else 1)(talk, stream)

    with Peer(serve) as peer, driving(peer.plan()) as driver:
        offer(driver, Concurrency(4), count(20))
        connection = driver._pool.only
        assert connection
        # h2 counts along: it wants numbers that grow, and no more.
        connection.http2.number = LAST_STREAM - 2 * left
        samples = offer(driver, Concurrency(4), count(100))
        assert samples.errors == {}
        assert len(samples) >= 100
        assert peer.accepted == (2 if left == 30 else 1)


def test_a_closed_loop_keeps_to_a_limit_of_streams_that_shrinks() -> None:
    """The peer raises for a stream too many."""

    def serve(talk: Talk, stream: int) -> None:
        if talk.number == 0 and talk.count == 100:
            talk.side.h2.update_settings({MOST_STREAMS: 2})
            talk.flush()
            # It comes alone, so that the hot path sees nothing else.
            time.sleep(0.02)
        echo(talk, stream)

    with Peer(serve) as peer, driving(peer.plan()) as driver:
        samples = offer(driver, Concurrency(6), count(1000))
        assert samples.errors == {}
        assert peer.accepted > 1


@pytest.mark.parametrize("concurrency", [1, 4, 30])
def test_a_closed_loop_keeps_to_a_window_that_is_refilled_with_each_answer(concurrency: int) -> None:
    """The peer raises for a byte too many. There is room for 13 requests."""

    def serve(talk: Talk, stream: int) -> None:
        talk.side.give(0, 5_005)
        talk.side.answer(stream, b"answer")

    settings = {SettingCodes.INITIAL_WINDOW_SIZE: 1 << 30}
    with Peer(serve, settings=settings, room=0) as peer, driving(peer.plan(bytes(5_000))) as driver:
        samples = offer(driver, Concurrency(concurrency), count(500))
        assert samples.errors == {}
        assert len(samples) >= 500
        assert peer.accepted == 1


def test_a_slot_may_be_refused_again_and_again() -> None:
    """But no request more than twice."""

    def serve(talk: Talk, stream: int) -> None:
        if talk.count % 10 == 0:
            talk.side.h2.reset_stream(stream, ErrorCodes.REFUSED_STREAM)
        else:
            echo(talk, stream)

    with Peer(serve) as peer, driving(peer.plan()) as driver:
        assert offer(driver, Concurrency(1), count(200)).errors == {}


def test_a_closed_loop_waits_for_a_server_that_takes_nothing() -> None:
    def release(samples: Samples) -> bool:
        if peer.talks and samples.wall_s > 0.1 and not released:
            released.append(True)
            peer.talks[0].side.h2.update_settings({MOST_STREAMS: 100})
            peer.talks[0].flush()
        return len(samples) >= 20

    released: list[bool] = []
    with Peer(settings={MOST_STREAMS: 0}) as peer, driving(peer.plan()) as driver:
        samples = offer(driver, Concurrency(3), release)
        assert released
        assert samples.errors == {}
        assert len(samples) >= 20


def test_an_open_loop_counts_what_waits_for_a_server_that_takes_nothing() -> None:
    waiting: list[int] = []

    def release(samples: Samples) -> bool:
        if peer.talks and samples.waiting > 20 and not waiting:
            waiting.append(samples.waiting)
            peer.talks[0].side.h2.update_settings({MOST_STREAMS: 100})
            peer.talks[0].flush()
        return len(samples) >= 100

    with Peer(settings={MOST_STREAMS: 0}) as peer, driving(peer.plan()) as driver:
        samples = offer(driver, RequestRate(500, "constant"), release)
    first = np.argsort(samples.sent_ns)[:20]
    assert samples.errors == {}
    # Due every 2 ms, and sent together.
    assert np.diff(samples.sent_ns[first]).tolist() == [2_000_000] * 19
    assert (samples.lag_us[first] > 2_000 * (19 - np.arange(20))).all()
    assert ((samples.done_ns - samples.sent_ns) // 1_000 >= samples.lag_us).all()


def test_an_open_loop_does_not_swamp_a_server() -> None:
    """What is due beyond some number waits, in order, and is timed from when it was due."""
    answering = threading.Event()

    def serve(talk: Talk, stream: int) -> None:
        if answering.is_set():
            echo(talk, stream)

    def release(samples: Samples) -> bool:
        if samples.waiting == 1500 - 1024 and peer.count == 1024 and not answering.is_set():
            answering.set()
            (talk,) = peer.talks
            for stream in list(talk.side.asked):
                echo(talk, stream)
            talk.flush()
        return False

    with Peer(serve) as peer, driving(peer.plan(request_timeout_s=60)) as driver:
        samples = offer(driver, Replay("test", tuple(range(1500))), release)
    assert answering.is_set()
    assert samples.errors == {}
    assert len(samples) == 1500
    due = np.argsort(samples.sent_ns)
    assert np.diff(samples.sent_ns[due]).tolist() == [1] * 1499
    assert (np.diff(samples.lag_us[due]) >= -1).all()


def test_an_open_loop_that_is_over_ends_by_itself_when_all_has_ended() -> None:
    with Peer(in_bursts(3)) as peer, driving(peer.plan()) as driver:
        samples = offer(driver, Replay("test", (0, 1_000_000, 100_000_000)), never)
    assert len(samples) == 3
    assert samples.errors == {}
    assert np.diff(np.sort(samples.sent_ns)).tolist() == [1_000_000, 99_000_000]
    assert samples.wall_s > 0.1


def slow(talk: Talk, stream: int) -> None:
    """Answer after a while."""
    time.sleep(0.1)
    echo(talk, stream)


@pytest.mark.parametrize("load", [Concurrency(3), RequestRate(200)])
def test_what_is_under_way_at_the_end_is_drained(load: Load) -> None:
    with Peer(slow) as peer, driving(peer.plan()) as driver:
        samples = offer(driver, load, lambda _: peer.count >= 1, drain_s=30)
        assert peer.count > len(samples)
        assert not peer.asked
        assert not driver._pool.ended


@pytest.mark.parametrize("load", [Concurrency(3), RequestRate(200)])
def test_what_does_not_end_in_time_is_cancelled(load: Load) -> None:
    with Peer(keep_silent) as peer, driving(peer.plan()) as driver:
        samples = offer(driver, load, lambda _: peer.count >= 3, drain_s=0.05)
        assert len(samples) == 0
        assert driver._pool.under_way == 0
        assert not driver._pool.ended
        deadline = time.monotonic() + 20
        while not all(asked.reset is ErrorCodes.CANCEL for asked in peer.asked):
            assert time.monotonic() < deadline
            time.sleep(0.005)


def test_one_failure_is_retried_at_once_and_a_row_of_them_waits() -> None:
    def serve(talk: Talk, stream: int) -> None:
        talk.side.asked.clear()
        talk.side.fail(stream, 13, "no")

    at_once_ms: list[float] = []
    with Peer(serve) as peer, driving(peer.plan()) as driver:
        while not at_once_ms or (min(at_once_ms) >= 10 and len(at_once_ms) < 20):
            samples = offer(driver, Concurrency(1), count(6))
            assert samples.errors == {"INTERNAL: no": len(samples)}
            pauses_ms = (samples.sent_ns[1:6] - samples.done_ns[:5]) / 1e6
            assert (pauses_ms[1:] >= [10, 20, 40, 80]).all()
            at_once_ms.append(pauses_ms[0])
    # A busy machine may stand still for a while, but not each time.
    assert min(at_once_ms) < 10


def test_a_slot_that_has_recovered_is_as_good_as_before() -> None:
    """Two failures, then two answers, and so on: no pause is longer than the first."""

    def serve(talk: Talk, stream: int) -> None:
        if talk.count % 4 in {1, 2}:
            talk.side.fail(stream, 14, "no")
        else:
            echo(talk, stream)

    with Peer(serve) as peer, driving(peer.plan()) as driver:
        samples = offer(driver, Concurrency(1), count(60))
    pauses_ms = (samples.sent_ns[1:] - samples.done_ns[:-1]) / 1e6
    assert (pauses_ms[1::4] >= 10).all()
    # Not the longest, as after so many failures in a row.
    assert pauses_ms[1::4][5:].min() < 200
    assert samples.ok.tolist()[:8] == [False, False, True, True] * 2


@pytest.mark.parametrize("size", [7, 100_000])
def test_an_answer_to_a_request_that_has_not_gone_breaks_nothing(size: int) -> None:
    """Such a server has lost its mind. Its answers may count, or its connections be given up."""

    def serve(talk: Talk, stream: int) -> None:
        del talk.side.asked[stream]
        if talk.count % 10 != 9:
            talk.side.answer(stream, b"answer")
            return
        talk.flush()
        early = b"".join(answer_of(talk, number) for number in (stream, stream + 2, stream + 4))
        talk.socket.sendall(early + frames.window_update(0, 1))
        # h2 would not have what follows.
        with suppress(OSError):
            while talk.socket.recv(1 << 16):
                talk.socket.sendall(frames.window_update(0, 1))

    settings = {SettingCodes.INITIAL_WINDOW_SIZE: 1 << 30}
    # For ten large requests and a half.
    room = 1_050_000 - 65_535
    with Peer(serve, settings=settings, room=room) as peer, driving(peer.plan(bytes(size))) as driver:
        samples = offer(driver, Concurrency(1), count(60))
        assert len(samples) >= 60
        assert not driver._pool.under_way


def test_a_message_too_many_is_not_missed_while_all_else_is_well() -> None:
    """It comes first, and alone; what follows looks like a whole answer."""

    def serve(talk: Talk, stream: int) -> None:
        talk.side.begin(stream)
        if talk.count % 10 == 0:
            talk.side.send(stream, b"\0\0\0\0\6answer")
            talk.flush()
            time.sleep(0.01)
            talk.socket.sendall(answer_of(talk, stream))
            talk.side.h2.end_stream(stream)
            talk.side.take()
        else:
            talk.side.send(stream, b"\0\0\0\0\6answer")
            talk.side.end(stream)

    with Peer(serve) as peer, driving(peer.plan()) as driver:
        samples = offer(driver, Concurrency(1), count(100))
    assert samples.errors.keys() == {"INTERNAL: the answer has 22 of 11 bytes"}
    assert np.count_nonzero(~samples.ok) == pytest.approx(len(samples) / 10, abs=1)


def test_answers_are_compared_with_what_is_expected() -> None:
    right = service_pb2.ModelInferResponse(
        outputs=[service_pb2.ModelInferResponse.InferOutputTensor(name="OUT")], raw_output_contents=[b"right"]
    ).SerializeToString()

    def serve(talk: Talk, stream: int) -> None:
        asked = bytes(talk.side.asked.pop(stream).body[5:])
        talk.side.answer(stream, {b"right": right, b"wrong": right.replace(b"right", b"wrong")}.get(asked, asked))

    with Peer(serve) as peer:
        plan = peer.plan()
        requests = tuple(Request(content, expected={"OUT": b"right"}) for content in (b"right", b"wrong", b"\xff\xff"))
        plan = replace(plan, workload=replace(plan.workload, streams=((*requests, Request(b"whatever")),)))
        with driving(plan) as driver:
            samples = offer(driver, Concurrency(4), count(80))
    said = Counter({message: number for message, number in samples.errors.items() if number > 5})
    assert set(said) == {
        "DATA_LOSS: output OUT differs from what --input-data expects",
        "DATA_LOSS: the answer is not a valid ModelInferResponse",
    }
    assert samples.ok.sum() > 10


def test_latency_is_between_sending_and_answer() -> None:
    with Peer(slow) as peer, driving(peer.plan()) as driver:
        samples = offer(driver, Concurrency(1), count(3))
    assert ((samples.done_ns - samples.sent_ns) / 1e9 >= 0.1).all()
    assert (samples.lag_us == 0).all()
