"""Work is given to free slots, and done again once on another host when its own was lost."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import pytest
from support.executors import FakeExecutor, host

from tuner.cluster.dispatcher import Dispatcher, Piece, Watch
from tuner.cluster.slots import Host, Slot
from tuner.config.patch import Patch
from tuner.core.errors import HostLostError, InputError, TuningError
from tuner.measure.rules import LevelRules
from tuner.measure.work import UNHEARD, Limits, Loads, Outcome, TrialProgress, TrialTerms, Work
from tuner.options.groups import LoadOptions

WORK = Work(TrialTerms("m", LoadOptions(), LevelRules(), 8), Patch(config=""), Loads(()), Limits(1.0, 1.0, 1.0))
HOSTS = (host("a"), host("b", 2))


class LaterExecutor(FakeExecutor):
    """An executor whose work ends when a test says so.

    Attributes:
        running: The work under way, by slot.
        placed: Called with the name of the slot of each piece of work.
    """

    def __init__(self, *hosts: Host) -> None:
        super().__init__(cast("Any", None), hosts)
        self.running: dict[str, Future[Outcome]] = {}
        self.placed: Callable[[str], None] = lambda _: None

    def submit(self, work: Work, slot: Slot, folder: Path, progress: TrialProgress) -> Future[Outcome]:
        del work, folder, progress
        assert slot in self.slots
        assert slot.name not in self.running
        future = self.running[slot.name] = Future()
        self.placed(slot.name)
        return future

    def ends(self, slot: str, result: Outcome | BaseException = Outcome()) -> None:  # noqa: B008 (frozen)
        """The work on a slot ends."""
        future = self.running.pop(slot)
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)

    def loses(self, name: str) -> None:
        """A host is lost, with the work on it."""
        (lost,) = [each for each in self._hosts if each.name == name]
        self._hosts = tuple(each for each in self._hosts if each is not lost)
        for slot in lost.slots:
            if slot.name in self.running:
                self.ends(slot.name, HostLostError(f"host {name} was lost"))

    def gets(self, new: Host) -> None:
        """A host joins."""
        self._hosts = (*self._hosts, new)


class Run(Watch):
    """A dispatcher with a clock that its waiting moves.

    Attributes:
        later: Called with the time whenever it waits.
    """

    def __init__(self, *hosts: Host) -> None:
        self.executor = LaterExecutor(*hosts)
        self.now_s = 0.0
        self.later: Callable[[float], None] = lambda _: None
        self.lost: list[tuple[object, str, str]] = []
        self.seen: list[str] = []
        self.dispatcher = Dispatcher(self.executor, self, now=lambda: self.now_s, sleep=self._sleep)

    def start(self, *keys: str) -> None:
        """Start pieces on free slots."""
        for key, slot in zip(keys, self.dispatcher.free(), strict=False):
            self.dispatcher.start(key, WORK, slot, Path(), UNHEARD)

    def next(self) -> tuple[object, str, Outcome | None]:
        """The next piece that ends, and where it was."""
        finished = self.dispatcher.wait()
        assert finished
        return finished.piece.key, finished.piece.slot.name, finished.outcome

    def began(self, piece: Piece) -> None:
        self.seen.append(f"{piece.key} began on {piece.slot.name}")

    def requeued(self, piece: Piece, reason: str) -> None:
        self.lost.append((piece.key, piece.slot.name, reason))

    def ended(self, piece: Piece) -> None:
        self.seen.append(f"{piece.key} ended on {piece.slot.name}")

    def _sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.later(self.now_s)


def test_a_slot_has_one_piece_at_a_time() -> None:
    run = Run(*HOSTS)
    run.start("one", "two", "three", "four")
    assert run.dispatcher.under_way == ("one", "two", "three")
    assert run.dispatcher.free() == ()
    run.executor.ends("b/0", Outcome(wall_s=2.0))
    assert run.next() == ("two", "b/0", Outcome(wall_s=2.0, host="b"))
    assert [slot.name for slot in run.dispatcher.free()] == ["b/0"]


def test_lost_work_is_done_again_on_another_host_before_other_work() -> None:
    run = Run(*HOSTS)
    run.start("one", "two", "three")
    run.executor.loses("a")
    run.executor.ends("b/1")
    assert run.next()[:2] == ("three", "b/1")
    assert run.lost == [("one", "a/0", "host a was lost")]
    # The free slot is for the lost work.
    assert run.dispatcher.free() == ()
    assert run.dispatcher.under_way == ("two", "one")
    run.executor.ends("b/0")
    assert run.next()[0] == "two"
    run.executor.ends("b/1", Outcome(wall_s=1.0))
    assert run.next() == ("one", "b/1", Outcome(wall_s=1.0, host="b"))


def test_another_host_is_preferred_to_the_one_that_lost_the_work() -> None:
    run = Run(host("a", 2), host("b"))
    run.start("one")
    run.executor.placed = run.executor.ends
    run.executor.ends("a/0", HostLostError("its process was killed"))
    assert run.next() == ("one", "b/0", Outcome(host="b"))
    assert run.seen == ["one began on a/0", "one began on b/0", "one ended on b/0"]


def test_the_same_host_is_better_than_none() -> None:
    run = Run(host("a"))
    run.start("one")
    run.executor.placed = run.executor.ends
    run.executor.ends("a/0", HostLostError("its process was killed"))
    assert run.next() == ("one", "a/0", Outcome(host="a"))


def test_work_whose_hosts_were_lost_twice_is_given_up() -> None:
    run = Run(*HOSTS)
    run.start("one")
    run.executor.placed = lambda slot: run.executor.ends(slot, HostLostError("second"))
    run.executor.ends("a/0", HostLostError("first"))
    assert run.next() == ("one", "b/0", None)
    assert [reason for _, _, reason in run.lost] == ["first"]
    assert run.dispatcher.under_way == ()
    with pytest.raises(TuningError, match=r"^model 'm': the hosts of a launch were lost twice$"):
        run.dispatcher.carry_out("two", WORK, Path())


def test_lost_work_waits_for_a_host_of_its_class() -> None:
    run = Run(host("a"), host("b", host_class="B"))
    run.start("one")
    run.executor.loses("a")
    run.executor.placed = run.executor.ends
    run.later = lambda now_s: run.executor.gets(host("c")) if now_s == 5 else None
    assert run.next() == ("one", "c/0", Outcome(host="c"))


def test_what_is_taken_together_is_measured_on_one_class_of_hosts() -> None:
    run = Run(host("b", host_class="B"), host("a", 2), host("c", host_class="C"))
    assert [slot.name for slot in run.dispatcher.comparable] == ["a/0", "a/1"]
    (first, *_) = run.dispatcher.free_comparable()
    run.dispatcher.start("one", WORK, first, Path(), UNHEARD)
    assert [slot.name for slot in run.dispatcher.free_comparable()] == ["a/1"]
    # Without the reference class, it is another one, but not two together.
    run.executor.loses("a")
    assert [slot.name for slot in run.dispatcher.comparable] == ["b/0"]


def test_work_that_is_carried_out_alone_is_done_on_the_reference_class() -> None:
    run = Run(host("b", host_class="B"), host("a"))
    run.executor.placed = run.executor.ends
    assert run.dispatcher.carry_out("one", WORK, Path()).host == "a"


def test_lost_work_without_a_host_of_its_class_is_given_up_after_a_while() -> None:
    run = Run(host("a"), host("b", host_class="B"))
    run.start("one")
    run.executor.loses("a")
    assert run.next() == ("one", "a/0", None)
    assert 60 <= run.now_s < 70


def test_a_new_slot_ends_the_waiting() -> None:
    run = Run(host("a"))
    run.executor.loses("a")
    run.later = lambda now_s: run.executor.gets(host("b")) if now_s == 5 else None
    assert run.dispatcher.wait() is None
    assert [slot.name for slot in run.dispatcher.free()] == ["b/0"]


@pytest.mark.parametrize("has_work", [True, False])
def test_a_run_without_hosts_ends_after_a_while(*, has_work: bool) -> None:
    run = Run(host("a"))
    if has_work:
        run.start("one")
    run.executor.loses("a")
    with pytest.raises(TuningError, match=f"^no host is left to go on with{': host a was lost' * has_work}$"):
        run.dispatcher.wait()
    assert 60 <= run.now_s < 70


def test_what_is_wrong_with_the_baseline_is_raised() -> None:
    run = Run(host("a"))
    run.start("one")
    run.executor.ends("a/0", InputError("no such input"))
    with pytest.raises(InputError, match="^no such input$"):
        run.dispatcher.wait()
    assert run.dispatcher.under_way == ()
