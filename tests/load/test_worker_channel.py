from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from tuner.load.worker_channel import Channel


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = socket.socketpair()
    with Channel(ours) as one, Channel(theirs) as other:
        yield one, other


def test_objects_arrive_in_order(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    for sent in ({"a": [1, 2]}, None, b""):
        one.send(sent)
        other.send((sent, sent))
    for sent in ({"a": [1, 2]}, None, b""):
        assert other.receive() == (sent, [])
        assert one.receive() == ((sent, sent), [])


def test_descriptors_arrive_with_their_object(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    reading, writing = os.pipe()
    one.send("first", (writing,))
    one.send("second")
    os.close(writing)
    message, (copy,) = other.receive()
    assert message == "first"
    os.write(copy, b"through the copy")
    os.close(copy)
    assert os.read(reading, 100) == b"through the copy"
    assert os.read(reading, 100) == b""
    os.close(reading)
    assert other.receive() == ("second", [])


def test_objects_may_be_large(ends: tuple[Channel, Channel]) -> None:
    """Far beyond what the kernel holds for them."""
    one, other = ends
    large = os.urandom(1 << 20) * 50
    sending = threading.Thread(target=one.send, args=(large,))
    sending.start()
    assert other.receive()[0] == large
    sending.join()


def test_there_is_something_to_read_when_the_other_end_is_gone(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    one.send("last")
    one.close()
    one.close()
    assert other.receive() == ("last", [])
    with pytest.raises(EOFError):
        other.receive()
    with pytest.raises(OSError, match="Broken pipe"):
        other.send("to nobody")


@pytest.mark.parametrize("whole", [b"\5\0\0", b"\5\0\0\0\0\0\0\0", b"\5\0\0\0\0\0\0\0abc"])
def test_half_an_object_is_none(ends: tuple[Channel, Channel], whole: bytes) -> None:
    one, other = ends
    one._end.sendall(whole)
    one.close()
    with pytest.raises(EOFError):
        other.receive()


def test_who_takes_nothing_is_not_waited_for_without_end() -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(0.05)
    with Channel(ours) as one, Channel(theirs), pytest.raises(TimeoutError):
        one.send(bytes(50_000_000))
