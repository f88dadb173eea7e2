from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from tuner.nightly.night import NightWindow


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """All is afterwards as it was."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before


def wait() -> None:
    """For the alarm."""
    assert threading.Event().wait(60.0), "no alarm came"


def test_its_end_interrupts() -> None:
    window = NightWindow()
    with pytest.raises(KeyboardInterrupt), window.lasting(0.05):
        wait()
    assert window.over


def test_its_end_interrupts_where_ctrl_c_is_ignored() -> None:
    """As shells have it for what they run in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt), NightWindow().lasting(0.05):
            wait()
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_it_has_interrupted_ends_undisturbed() -> None:
    ended: list[int] = []

    def end() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            signal.raise_signal(number)
            ended.append(number)

    with suppress(KeyboardInterrupt), NightWindow().lasting(0.05), ExitStack() as ending:
        ending.callback(end)
        wait()
    assert len(ended) == 3


def test_a_timer_of_others_goes_on() -> None:
    others_s, _ = signal.setitimer(signal.ITIMER_REAL, 50.0)
    try:
        with NightWindow().lasting(10.0):
            pass
        left_s, _ = signal.getitimer(signal.ITIMER_REAL)
        assert 0 < left_s <= 50.0
    finally:
        signal.setitimer(signal.ITIMER_REAL, others_s)


def test_in_another_thread_it_does_without() -> None:
    done: list[bool] = []

    def work() -> None:
        with NightWindow().lasting(60.0):
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
