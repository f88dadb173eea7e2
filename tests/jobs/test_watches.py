"""What the dispatchers of a run tell its progress, on an executor whose hosts are lost when the test says so."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.executors import FakeExecutor, host

from tuner.cluster.dispatcher import Dispatcher
from tuner.cluster.slots import Host, Slot
from tuner.core.errors import HostLostError, TuningError
from tuner.jobs.progress import Progress
from tuner.jobs.trial_launches import TrialLaunch, _Watch
from tuner.jobs.watches import LaunchWatch
from tuner.measure.work import UNHEARD, Outcome, TrialProgress, Work

_WORK: Any = object()


class Told(Progress):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, text: str) -> None:
        self.told.append(text)

    def trial_began(self, number: int, words: str, slot: str = "") -> None:
        self.told.append(f"trial {number} on {slot or 'the only slot'}: {words}")

    def launch_began(self, slot: str, words: str) -> None:
        self.told.append(f"{slot}: {words}")

    def launch_ended(self, slot: str) -> None:
        self.told.append(f"{slot}: idle")


class Hosts(FakeExecutor):
    """Carries work out when the test says so."""

    def __init__(self, *hosts: Host) -> None:
        super().__init__(lambda *_: Outcome(), hosts)
        self.lost: set[str] = set()
        self.under_way: dict[str, Future[Outcome]] = {}
        self.fails_with: dict[str, Exception] = {}

    @property
    def slots(self) -> tuple[Slot, ...]:
        return tuple(slot for slot in super().slots if slot.host not in self.lost)

    def submit(self, work: Work, slot: Slot, folder: Path, progress: TrialProgress) -> Future[Outcome]:
        del work, folder, progress
        self.under_way[slot.name] = Future()
        if slot.name in self.fails_with:
            self.under_way[slot.name].set_exception(self.fails_with[slot.name])
        return self.under_way[slot.name]

    def lose(self, slot: str) -> None:
        self.lost.add(slot.partition("/")[0])
        self.under_way[slot].set_exception(HostLostError("its node died"))


def _trials(told: Told, executor: FakeExecutor, *, several: bool) -> Dispatcher:
    context: Any = SimpleNamespace(progress=told, has_several_slots=several)
    return Dispatcher(executor, _Watch(context), sleep=lambda _: None)


def _begin(dispatcher: Dispatcher, number: int) -> None:
    trial = TrialLaunch(number, _WORK, f"count {number}")
    dispatcher.start(trial, _WORK, dispatcher.free()[0], Path(), UNHEARD)


def test_trials_tell_their_slots_and_begin_again_elsewhere() -> None:
    told, executor = Told(), Hosts(host("a"), host("b"))
    dispatcher = _trials(told, executor, several=True)
    for number in (1, 2):
        _begin(dispatcher, number)
    executor.lose("a/0")
    executor.under_way["b/0"].set_result(Outcome())
    second: Any = dispatcher.outcome().piece.key
    assert second.number == 2
    dispatcher._place_again()
    executor.lose("b/0")
    assert dispatcher.outcome().outcome is None
    assert told.told == [
        "trial 1 on a/0: count 1",
        "trial 2 on b/0: count 2",
        "trial 1 starts again on another host: a/0 was lost (its node died)",
        "trial 1 on b/0: count 1",
    ]


def test_launches_that_are_no_trials_tell_their_slots() -> None:
    told, executor = Told(), Hosts(host("a", 2))
    dispatcher = Dispatcher(executor, LaunchWatch(told), sleep=lambda _: None)

    def start(words: str) -> None:
        dispatcher.start(words, _WORK, dispatcher.free()[0], Path(), UNHEARD)

    start("round 1 of trial 3")
    executor.under_way["a/0"].set_result(Outcome())
    dispatcher.outcome()
    start("round 2 of trial 3")
    executor.under_way["a/0"].set_exception(TuningError("no Triton"))
    with pytest.raises(TuningError, match="no Triton"):
        dispatcher.outcome()
    start("round 3 of trial 3")
    executor.fails_with["a/0"] = TuningError("no Triton")
    executor.under_way["a/0"].set_exception(HostLostError("its node died"))
    with pytest.raises(TuningError, match="no Triton"):
        dispatcher.wait()
    assert told.told == [
        "a/0: round 1 of trial 3",
        "a/0: idle",
        "a/0: round 2 of trial 3",
        "a/0: idle",
        "a/0: round 3 of trial 3",
        "round 3 of trial 3 starts again on another host: a/0 was lost (its node died)",
        "a/0: round 3 of trial 3",
        "a/0: idle",
    ]


def test_a_run_with_one_slot_tells_of_no_slot() -> None:
    told, executor = Told(), FakeExecutor(lambda *_: Outcome())
    trials = _trials(told, executor, several=False)
    _begin(trials, 1)
    trials.outcome()
    assert told.told == ["trial 1 on the only slot: count 1"]


def test_a_relaunch_of_the_baseline_is_no_trial() -> None:
    told, executor = Told(), FakeExecutor(lambda *_: Outcome())
    _trials(told, executor, several=False).carry_out("the baseline", _WORK, Path())
    assert told.told == []
