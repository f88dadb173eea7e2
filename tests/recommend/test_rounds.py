"""Rounds of verification that several slots carry out at a time; no server and no clock is needed."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from support.builders import point, trial

from tuner.core.loads import Concurrency, Load, RequestRate
from tuner.core.objectives import THROUGHPUT, Objective
from tuner.core.slo import NO_LIMIT, Statistic
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.recommend.finalist import LEAST_ROUNDS
from tuner.recommend.gain import pairs_of
from tuner.recommend.recommend import recommend
from tuner.recommend.rounds import Relaunch, Round, VerificationPlan, VerificationTerms, carry_out_rounds
from tuner.recommend.verification import Verification
from tuner.recommend.verify_at_rate import verification_plan

TRIALS = [trial(0, point(1, 100, 10)), *(trial(n, point(8, per_s, 12)) for n, per_s in ((1, 300), (2, 296), (3, 120)))]
RATE = RequestRate(200.0)
QUICK = Objective.quickest(Statistic.parse("p99"), RATE.per_s)
AT_RATE = [trial(n, point(RATE, 200, p99, kept_up=True)) for n, p99 in enumerate((40, 10.0, 10.5))]
BOTH = pytest.mark.parametrize(("trials", "objective"), [(TRIALS, THROUGHPUT), (AT_RATE, QUICK)])


def plan_of(
    trials: Sequence[TrialResult] = TRIALS,
    objective: Objective = THROUGHPUT,
    *,
    slots: int = 1,
    verified: Sequence[Verification] = (),
    now: Callable[[], float] = lambda: 0.0,
    until: float = 1e6,
) -> VerificationPlan:
    terms = VerificationTerms(slo=NO_LIMIT, until=until, launch_s=4.0, objective=objective, slots=slots, now=now)
    return verification_plan(trials, terms, verified=verified)


class Slots:
    """Carries out rounds on slots, each launch four seconds, and each slot a host of its own.

    Args:
        plan: The plan.
        slots: The number of slots.
        noise: Standard deviation of the logarithm of a launch's speed.
    """

    def __init__(self, plan: VerificationPlan, slots: int, noise: float = 0.05) -> None:
        self._plan, self._free, self._noise = plan, list(range(slots)), noise
        self._rng = np.random.default_rng(0)
        self.rounds: list[Round] = []
        self.now_s = 0.0

    def run(self) -> tuple[Verification, ...]:
        """Give each free slot a round, until none is due."""
        running: list[tuple[float, int, int, Round]] = []
        for count in itertools.count():
            while self._free and (due := self._plan.due()):
                self.rounds.append(due)
                took_s = 4.0 * len(due.launches) * float(self._rng.uniform(0.8, 1.2))
                heapq.heappush(running, (self.now_s + took_s, count + len(self.rounds), self._free.pop(), due))
            if not running:
                return self._plan.verifications
            self.now_s, _, slot, due = heapq.heappop(running)
            for launch in due.launches:
                self._plan.begin(due, launch)
                self._plan.receive(due, launch, self._measured(launch), host=f"host-{slot}", took_s=4.0)
            self._plan.end(due)
            self._free.append(slot)
        raise AssertionError

    def _measured(self, launch: Relaunch) -> list[OperatingPoint]:
        speed = float(np.exp(self._noise * self._rng.standard_normal()))
        by_load = {measured.load: measured for measured in launch.trial.curve}
        searched = [by_load.get(load, launch.trial.curve[0]) for load in launch.loads]
        return [
            point(load, p.throughput.value * speed, p.latency_ms["p99"].value / speed, kept_up=p.kept_up)
            for load, p in zip(launch.loads, searched, strict=True)
        ]


@BOTH
def test_several_slots_find_the_same_in_less_time(trials: list[TrialResult], objective: Objective) -> None:
    serial, parallel = (Slots(plan_of(trials, objective, slots=count), count, noise=0.01) for count in (1, 3))
    found = [recommend(trials, NO_LIMIT, slots.run(), objective=objective) for slots in (serial, parallel)]
    for each in found:
        assert each.best is not None
        assert each.best.confirmed
        assert each.best.trial.number in {1, 2}
        assert each.pairs >= LEAST_ROUNDS
    assert parallel.now_s < 0.7 * serial.now_s
    launches = [sum(len(due.launches) for due in slots.rounds) for slots in (serial, parallel)]
    assert launches[1] <= 1.3 * launches[0]


@BOTH
def test_rounds_under_way_count_as_coming(trials: list[TrialResult], objective: Objective) -> None:
    plan = plan_of(trials, objective, slots=100)
    due = list(itertools.takewhile(bool, (plan.due() for _ in range(100))))
    assert len(due) < 10
    assert all(each and each.choosing for each in due)
    assert [each.number for each in due if each] == list(range(1, len(due) + 1))


@BOTH
def test_no_round_confirms_while_one_that_chooses_is_under_way(trials: list[TrialResult], objective: Objective) -> None:
    slots = Slots(plan_of(trials, objective, slots=4), 4)
    slots.run()
    kinds = [due.choosing for due in slots.rounds]
    assert kinds == sorted(kinds, reverse=True)
    assert kinds.count(False) >= LEAST_ROUNDS


def test_confirming_rounds_run_at_a_time_and_no_more_than_needed() -> None:
    plan = plan_of(TRIALS[:2], slots=8)
    due = [each for _ in range(8) if (each := plan.due())]
    assert [each.choosing for each in due] == [False] * LEAST_ROUNDS
    assert all(sorted(launch.trial.number for launch in each.launches) == [0, 1] for each in due)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_rounds_may_end_in_any_order(order: tuple[int, ...]) -> None:
    plan = plan_of(TRIALS[:2], slots=3)
    due = [each for _ in range(3) if (each := plan.due())]
    for at in order:
        for launch in due[at].launches:
            points = [point(load, 100.0 + due[at].number, 12) for load in launch.loads]
            plan.receive(due[at], launch, points, host=f"host-{at}", took_s=4.0)
        plan.end(due[at])
    for verification in plan.verifications:
        assert verification.numbers == (1, 2, 3)
        assert verification.hosts == ("host-0", "host-1", "host-2")
        assert [each.throughput.value for each in verification.rounds] == [101, 102, 103]


def test_the_same_results_in_the_same_order_make_the_same_rounds() -> None:
    runs = [Slots(plan_of(slots=3), 3) for _ in range(2)]
    for slots in runs:
        slots.run()
    assert runs[0].rounds == runs[1].rounds


def test_a_round_that_lost_its_host_keeps_its_points_and_is_made_up_for() -> None:
    plan = plan_of(TRIALS[:2], slots=3)
    due = [each for _ in range(3) if (each := plan.due())]
    for at, each in enumerate(due):
        for launch in each.launches[: 1 if at == 1 else 2]:
            points = [point(load, 100, 12) for load in launch.loads]
            plan.receive(each, launch, points, host=f"host-{at}", took_s=4.0)
        plan.end(each)
    counts = Counter({v.trial: len(v.numbers) for v in plan.verifications if v.load == Concurrency(8) or not v.trial})
    assert sorted(counts.values()) == [2, 3]
    again = plan.due()
    assert again is not None
    assert again.number == 4
    assert not any(verification.failure for verification in plan.verifications)


def test_pairs_are_of_one_round_and_one_host() -> None:
    def launched(number: int, *hosts: str) -> Verification:
        verification = Verification(trial=number, load=Concurrency(8))
        for at, host in enumerate(hosts, 1):
            verification = verification.with_round(point(8, 100 + at, 12), at, host)
        return verification

    pairs = pairs_of(launched(1, "a", "b", "a"), launched(0, "a", "a", "a"))
    assert [above.value for above, _ in pairs] == [101, 103]
    # Verifications of earlier versions have no hosts.
    old = launched(0, "", "", "")
    assert old.hosts == ()
    assert len(pairs_of(launched(1, "", ""), old)) == 2


def test_a_failure_is_told_once_and_ends_the_config() -> None:
    notes: list[str] = []
    terms = VerificationTerms(slo=NO_LIMIT, until=1e6, launch_s=4.0, slots=4)
    plan = verification_plan(TRIALS, terms, note=notes.append)
    due = [each for _ in range(2) if (each := plan.due())]
    for each in due:
        for launch in each.launches:
            plan.receive(each, launch, (), "crashed: gone", host="a", took_s=1.0)
    for each in due:
        plan.end(each)
    assert len(notes) == len(set(notes)) == len(plan.verifications)
    struck = {launch.trial.number for each in due for launch in each.launches}
    following = plan.due()
    assert following is None or not struck & {launch.trial.number for launch in following.launches}


@BOTH
def test_while_the_search_goes_on_only_the_choice_is_prepared(trials: list[TrialResult], objective: Objective) -> None:
    plan = plan_of(trials, objective, slots=4)
    due = [each for _ in range(30) if (each := plan.due(speculative=True))]
    assert due
    assert all(each.choosing for each in due)
    later = plan_of(trials, objective, slots=4)
    finished = [each for _ in range(30) if (each := later.due())]
    assert len(due) < len(finished)
    # The search goes on, and finds a better one, while these rounds are under way.
    found = trials[1].model_copy(update={"number": 9, "curve": (_better(trials[1].curve[0], objective),)})
    plan.update([*trials, found])
    for each in due:
        for launch in each.launches:
            plan.receive(each, launch, launch.trial.curve, host="a", took_s=4.0)
        plan.end(each)
    following = plan.due()
    assert following is not None
    assert 9 in {launch.trial.number for launch in following.launches}
    assert all(verification.choosing == len(verification.rounds) for verification in plan.verifications)


def _better(of: OperatingPoint, objective: Objective) -> OperatingPoint:
    p99 = of.latency_ms["p99"].value
    if objective.maximizes:
        return point(of.load, 1.1 * of.throughput.value, p99)
    return point(of.load, 200, 0.9 * p99, kept_up=True)


def test_what_others_began_before_a_deadline_still_counts() -> None:
    now = [0.0]
    plan = plan_of(TRIALS[:2], slots=3, now=lambda: now[0], until=10.0)
    due = plan.due()
    assert due is not None
    now[0] = 11.0
    assert plan.due() is None
    for launch in due.launches:
        plan.receive(due, launch, [point(load, 100, 12) for load in launch.loads], took_s=4.0)
    plan.end(due)
    assert [len(verification.rounds) for verification in plan.verifications] == [1] * len(plan.verifications)


@BOTH
def test_one_slot_carries_out_round_after_round(trials: list[TrialResult], objective: Objective) -> None:
    plan = plan_of(trials, objective)
    kept: list[int] = []

    def keep(verified: Sequence[Verification]) -> None:
        kept.append(sum(len(verification.rounds) for verification in verified))

    def measure(trial: TrialResult, loads: Sequence[Load], number: int) -> Iterator[OperatingPoint]:
        del number
        return iter(trial.curve[: len(loads)])

    carry_out_rounds(plan, measure, lambda: 0.0, keep)
    assert kept == sorted(kept)
    assert kept[-1] > 0
    assert plan.due() is None
