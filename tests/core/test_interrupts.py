from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from tuner.core.interrupts import (
    ForcedError,
    end_on_sigterm,
    ignore_what_ends,
    is_ending,
    put_off,
    undisturbed,
    until_forced,
)

Context = Callable[[], AbstractContextManager[None]]

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)


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


@pytest.mark.parametrize("context", [put_off, undisturbed])
def test_afterwards_all_is_as_it_was(context: Context, ending: list[int]) -> None:
    before = [signal.getsignal(number) for number in ENDING]
    with context():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(number) for number in ENDING] == before
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert ending


@pytest.mark.parametrize("context", [put_off, undisturbed])
def test_what_is_ignored_stays_so(context: Context) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with context():
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("context", [put_off, undisturbed])
def test_another_thread_is_never_interrupted(context: Context, ending: list[int]) -> None:
    seen: list[object] = []

    def look() -> None:
        with context():
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [before]
    assert not ending


def test_one_within_the_other_is_put_off_to_the_end_of_the_outer(ending: list[int]) -> None:
    with contextlib.suppress(KeyboardInterrupt), put_off():
        assert send(signal.SIGTERM)
        assert not ending
    assert ending == [signal.SIGTERM]


def test_undisturbed_by_all_of_them(ending: list[int]) -> None:
    with undisturbed():
        for number in ENDING:
            signal.raise_signal(number)
    assert not ending


def test_what_is_ending_is_not_interrupted(ending: list[int]) -> None:
    before = {number: signal.getsignal(number) for number in ENDING}
    try:
        ignore_what_ends()
        for number in ENDING:
            signal.raise_signal(number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert not ending


@pytest.fixture
def as_it_was() -> Iterator[None]:
    before = [(number, signal.getsignal(number)) for number in ENDING]
    yield
    for number, known in before:
        signal.signal(number, known)


@pytest.mark.usefixtures("as_it_was")
class TestUntilForced:
    @staticmethod
    def _goes_on_until(*numbers: int) -> tuple[int, list[str]]:
        """How many of these signals are let pass, and what is told of it."""
        passed, told = 0, []
        with contextlib.suppress(ForcedError), until_forced(lambda: told.append("again")):
            for number in numbers:
                signal.raise_signal(number)
                passed += 1
        return passed, told

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_the_second_time_ends_it(self, number: signal.Signals) -> None:
        assert self._goes_on_until(number, number, number) == (1, ["again"])
        # What is left to say is said in peace.
        signal.raise_signal(number)

    def test_after_an_interruption_the_first_time_does(self) -> None:
        ignore_what_ends()
        assert self._goes_on_until() == (0, ["again"])
        assert self._goes_on_until(signal.SIGINT) == (0, ["again"])

    def test_what_was_ignored_is_again_at_the_end(self) -> None:
        ignore_what_ends()
        with until_forced(lambda: None):
            pass
        for number in ENDING:
            signal.raise_signal(number)

    def test_once_it_goes_on_and_all_is_as_before(self, ending: list[int]) -> None:
        before = [signal.getsignal(number) for number in ENDING]
        with until_forced(lambda: None):
            signal.raise_signal(signal.SIGTERM)
        assert ending == []
        assert [signal.getsignal(number) for number in ENDING] == before

    def test_an_alarm_waits(self) -> None:
        rung: list[int] = []
        signal.signal(signal.SIGALRM, lambda number, _: rung.append(number))
        with until_forced(pytest.fail):
            signal.raise_signal(signal.SIGALRM)
            assert rung == []
        assert rung == [signal.SIGALRM]

    def test_other_threads_are_left_alone(self) -> None:
        reached: list[bool] = []

        def within() -> None:
            with until_forced(pytest.fail):
                reached.append(True)

        thread = threading.Thread(target=within)
        thread.start()
        thread.join()
        assert reached == [True]


class TestAnInterruptionThatIsSwallowed:
    """As by a destructor, which runs at any moment."""

    @pytest.fixture(autouse=True)
    def armed(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        before = {number: signal.getsignal(number) for number in ENDING}
        monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
        end_on_sigterm()
        yield
        for number, action in before.items():
            signal.signal(number, action)

    class _Swallows:
        def __init__(self, error: type[BaseException] | None = None) -> None:
            self._error = error

        def __del__(self) -> None:
            if self._error:
                raise self._error
            signal.raise_signal(signal.SIGTERM)

    @staticmethod
    def _work() -> None:
        for _ in range(6000):
            time.sleep(0.01)

    def test_comes_again(self) -> None:
        swallowing = [self._Swallows()]
        swallowing.clear()
        assert not is_ending()
        with pytest.raises(KeyboardInterrupt):
            self._work()
        assert is_ending()

    @pytest.mark.parametrize("context", [put_off, undisturbed])
    def test_waits_for_what_delays_it(self, context: Context) -> None:
        swallowing = [self._Swallows()]
        swallowing.clear()
        with context():
            time.sleep(0.1)
        with pytest.raises(KeyboardInterrupt):
            self._work()

    def test_other_errors_are_told_as_before(self, monkeypatch: pytest.MonkeyPatch) -> None:
        told: list[type[BaseException]] = []
        monkeypatch.setattr(sys, "unraisablehook", lambda swallowed: told.append(swallowed.exc_type))
        end_on_sigterm()
        end_on_sigterm()  # once is enough
        swallowing = [self._Swallows(ValueError)]
        swallowing.clear()
        assert told == [ValueError]
