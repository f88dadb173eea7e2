"""Rounds of a verification stay on one slot, and wait for hosts that come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from support.builders import point, trial
from support.executors import SlotsExecutor, host

from tuner.cluster.dispatcher import Dispatcher
from tuner.config.patch import Patch
from tuner.core.loads import Concurrency
from tuner.jobs.rounds_on_slots import RoundsOnSlots
from tuner.measure.rules import LevelRules
from tuner.measure.work import Limits, Loads, Outcome, TrialProgress, TrialTerms, Work
from tuner.options.groups import LoadOptions
from tuner.recommend.rounds import Relaunch, Round


class Plan:
    """Some rounds of two launches each; remembers what it is told."""

    def __init__(self, rounds: int) -> None:
        launches = tuple(Relaunch(trial(number), (Concurrency(8),)) for number in (0, 1))
        self._left = [Round(number, launches, choosing=False) for number in range(1, rounds + 1)]
        self.verifications = ()
        self.received: list[tuple[int, int, str]] = []
        self.ended: list[int] = []

    def due(self, *, speculative: bool = False) -> Round | None:
        assert not speculative
        return self._left.pop(0) if self._left else None

    def begin(self, due: Round, launch: Relaunch) -> None:
        assert launch in due.launches

    def receive(self, due: Round, launch: Relaunch, points: Any, *about: Any) -> None:
        failure, host, took_s = about
        assert points
        assert failure is None
        assert took_s >= 0
        self.received.append((due.number, launch.trial.number, host))

    def end(self, due: Round) -> None:
        self.ended.append(due.number)


class Verification:
    """Carries out the rounds of a plan on hosts that may be lost."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rounds: int, *hosts: Any) -> None:
        self.plan = Plan(rounds)
        self.executor = SlotsExecutor(self.carry_out, hosts)
        self.slept = 0
        monkeypatch.setattr("tuner.cluster.dispatcher.first_of", self.executor.first_of)
        dispatcher = Dispatcher(self.executor, sleep=self._sleep)
        terms = TrialTerms("m", LoadOptions(), LevelRules(), 8)
        work = Work(terms, Patch(config=""), Loads(()), Limits(1.0, 1.0, 1.0))
        self.rounds = RoundsOnSlots(
            cast("Any", self.plan), dispatcher, lambda _: work, Path(), lambda _: None, lambda: None
        )

    def carry_out(self, work: Work, folder: Path, progress: TrialProgress) -> Outcome:
        del work, folder, progress
        return Outcome((point(8, 100, 10),))

    def _sleep(self, _seconds: float) -> None:
        self.slept += 1
        if self.slept == 3:
            self.executor.lost.clear()


def test_a_round_stays_on_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    verification = Verification(monkeypatch, 3, host("a"), host("b"))
    verification.rounds.run()
    assert sorted(verification.plan.ended) == [1, 2, 3]
    by_round: dict[int, list[str]] = {}
    for number, _, name in verification.plan.received:
        by_round.setdefault(number, []).append(name)
    assert all(len(hosts) == 2 and len(set(hosts)) == 1 for hosts in by_round.values())
    assert {hosts[0] for hosts in by_round.values()} == {"a", "b"}


def test_a_round_ends_with_its_host_and_the_next_one_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    verification = Verification(monkeypatch, 3, host("a"))
    carry_out = verification.carry_out

    def lose(*about: Any) -> Outcome:
        if len(verification.plan.received) == 2:
            verification.executor.lost.add("a")
        return carry_out(*about)

    verification.executor._carry_out = lose
    verification.rounds.run()
    assert verification.slept == 3
    # The second round had one launch when its host was lost.
    assert [(number, trial) for number, trial, _ in verification.plan.received] == [
        (1, 0),
        (1, 1),
        (2, 0),
        (3, 0),
        (3, 1),
    ]
    assert verification.plan.ended == [1, 2, 3]
