from __future__ import annotations

import os
import signal
import threading

import pytest

from tuner.nightly.interruption import Window, undisturbed


def test_the_end_of_the_window_interrupts() -> None:
    window, before = Window(), signal.getsignal(signal.SIGALRM)
    with pytest.raises(KeyboardInterrupt), window.lasting(0.05):
        threading.Event().wait()
    assert window.over
    assert signal.getsignal(signal.SIGALRM) == before


def test_a_timer_of_others_goes_on() -> None:
    others_s, _ = signal.setitimer(signal.ITIMER_REAL, 50.0)
    try:
        with Window().lasting(10.0):
            pass
        left_s, _ = signal.getitimer(signal.ITIMER_REAL)
        assert 0 < left_s <= 50.0
    finally:
        signal.setitimer(signal.ITIMER_REAL, others_s)


def test_what_is_ending_already_is_not_interrupted_again() -> None:
    rung = threading.Event()
    window = Window()
    with window.lasting(60.0), undisturbed():
        ring = signal.getsignal(signal.SIGALRM)
        assert callable(ring)
        ring(signal.SIGALRM, None)
        rung.set()
    assert rung.is_set()
    assert not window.over


def test_nobody_disturbs_the_last_steps() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with undisturbed():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before


def test_in_another_thread_it_does_without() -> None:
    done: list[bool] = []

    def work() -> None:
        with Window().lasting(60.0), undisturbed():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
