from __future__ import annotations

import time

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from support.http2_peer import Http2Peer, Talk, keep_silent
from support.offers import driving

from tuner.load.drivers import Answer
from tuner.load.workload import Request


@pytest.mark.parametrize("size", [0, 5, 4_000_000])
def test_one_request_brings_its_answer(size: int) -> None:
    with Http2Peer() as peer, driving(peer.plan()) as driver:
        for _ in range(2):
            assert driver.ask(Request(bytes(size))) == Answer(bytes(size))
        assert peer.accepted == 1


def test_one_request_that_fails_says_why() -> None:
    with Http2Peer(lambda talk, stream: talk.side.fail(stream, 3, "bad shape")) as peer, driving(peer.plan()) as driver:
        assert driver.ask(Request(b"")) == Answer(b"", "INVALID_ARGUMENT: bad shape")


def test_one_request_that_is_not_answered_ends_at_its_deadline() -> None:
    with Http2Peer(keep_silent) as peer, driving(peer.plan(request_timeout_s=0.1)) as driver:
        began = time.monotonic()
        assert driver.ask(Request(b"")).error == "DEADLINE_EXCEEDED: no answer within 0.1 s"
        assert time.monotonic() - began >= 0.1


def test_one_request_that_the_server_has_no_room_for_ends_at_its_deadline() -> None:
    settings = {SettingCodes.MAX_CONCURRENT_STREAMS: 0}
    with Http2Peer(settings=settings) as peer, driving(peer.plan(request_timeout_s=0.1)) as driver:
        assert driver.ask(Request(b"")).error == "DEADLINE_EXCEEDED: the server accepted no request within 0.1 s"
        assert driver.ask(Request(b"")).error == "DEADLINE_EXCEEDED: the server accepted no request within 0.1 s"


def test_one_request_that_was_refused_in_the_middle_of_its_answer_brings_the_whole_one() -> None:
    def serve(talk: Talk, stream: int) -> None:
        talk.side.begin(stream)
        talk.side.send(stream, b"\0\0\0\0\4ab")
        if talk.count == 1:
            talk.side.h2.reset_stream(stream, ErrorCodes.REFUSED_STREAM)
        else:
            talk.side.send(stream, b"cd")
            talk.side.end(stream)

    with Http2Peer(serve) as peer, driving(peer.plan()) as driver:
        assert driver.ask(Request(b"")) == Answer(b"abcd")


def test_closing_hangs_up() -> None:
    with Http2Peer() as peer:
        with driving(peer.plan(connections=1)) as driver:
            driver.ask(Request(b""))
        driver.close()
        peer._threads[1].join(20)
        assert not peer._threads[1].is_alive()
