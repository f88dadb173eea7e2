from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

import pytest

from tuner.interrupts import put_off


@pytest.fixture
def ending() -> Iterator[list[int]]:
    """SIGTERM is noted and ends what is under way; as it was afterwards."""
    came: list[int] = []

    def end(number: int, _: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    yield came
    signal.signal(signal.SIGTERM, before)


def send(*numbers: int) -> bool:
    """Whether signals that come within let it go on to its end."""
    reached = False
    with contextlib.suppress(KeyboardInterrupt), put_off():
        for number in numbers:
            signal.raise_signal(number)
        reached = True
    return reached


def test_waits_until_the_end(ending: list[int]) -> None:
    assert send(signal.SIGTERM)
    assert ending == [signal.SIGTERM]


def test_ctrl_c_too() -> None:
    assert send(signal.SIGINT)


def test_the_first_of_several_counts(ending: list[int]) -> None:
    assert send(signal.SIGTERM, signal.SIGINT)
    assert ending == [signal.SIGTERM]


def test_afterwards_all_is_as_it_was(ending: list[int]) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    with put_off():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)] == before
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert ending


def test_what_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with put_off():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_is_never_interrupted(ending: list[int]) -> None:
    seen: list[object] = []

    def look() -> None:
        with put_off():
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [before]
    assert not ending
