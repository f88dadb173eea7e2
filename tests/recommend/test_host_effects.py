"""The effects of hosts on launches; no server is needed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from support.builders import point, trial

from tuner.core.errors import Cause
from tuner.core.loads import Concurrency, RequestRate
from tuner.core.objectives import THROUGHPUT, Objective
from tuner.core.slo import NO_LIMIT, Statistic
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.recommend.finals import Finals
from tuner.recommend.host_effects import NO_HOSTS, BaselineLaunch, HostEffects, HostRecord
from tuner.recommend.speed import Speed
from tuner.recommend.verification import Verification

Study = tuple[list[HostRecord], list[TrialResult], list[Verification]]


def point_on(effect: float, per_s: float = 100.0, noise: float = 0.0) -> OperatingPoint:
    speed = math.exp(effect + noise)
    return point(8, per_s * speed, 10 / speed)


def study_of(
    effects: Sequence[float],
    *,
    rounds: int = 0,
    noise: float = 0.0,
    rng: np.random.Generator | None = None,
    classes: Mapping[int, str] | None = None,
) -> Study:
    """The baseline on each host once, and rounds of it and of a finalist, in turn on each host."""
    rng = rng or np.random.default_rng(0)

    def measured(host: int, per_s: float = 100.0) -> OperatingPoint:
        return point_on(effects[host], per_s, noise * rng.standard_normal())

    baseline = trial(0, measured(0)).model_copy(update={"host": "h0"})
    # The search was lucky with it.
    finalist = trial(1, point(8, 260, 10)).model_copy(update={"host": "h1"})
    records = [HostRecord(name="h0")]
    for host in range(1, len(effects)):
        launch = BaselineLaunch(curve=(measured(host),), at=host)
        records.append(HostRecord(name=f"h{host}", host_class=(classes or {}).get(host, ""), launches=(launch,)))
    verified = [Verification(trial=n, load=Concurrency(8)) for n in (0, 1)]
    for number in range(1, rounds + 1):
        host = number % len(effects)
        verified = [
            each.with_round(measured(host, per_s), number, f"h{host}")
            for each, per_s in zip(verified, (100.0, 200.0), strict=True)
        ]
    return records, [baseline, finalist], verified


def test_one_host_has_no_effect() -> None:
    records, trials, verified = study_of([0.0], rounds=4, noise=0.1)
    assert HostEffects.of(records, [trials[0]], verified[:1]) is NO_HOSTS
    assert HostEffects.of((), [trial(0, point(1, 100, 10))], ()) is NO_HOSTS
    # An early version did not name the host.
    resumed = [trials[0].model_copy(update={"host": ""}), trials[1]]
    assert HostEffects.of([HostRecord(name="h1")], resumed, verified) is NO_HOSTS
    assert NO_HOSTS.throughput("h0") == NO_HOSTS.latency("any") == Speed(0.0, 0.0)


def test_without_any_host_all_is_as_it_was() -> None:
    trials = [trial(0, point(1, 100, 10)), trial(1, point(8, 300, 12)), trial(2, point(8, 290, 12))]
    verified = [Verification(trial=1, load=Concurrency(8)).with_round(point(8, 280, 12), 1)]
    of_one_host = [[HostRecord(name="")], []]
    values = []
    for records in of_one_host:
        finals = Finals(trials, NO_LIMIT, THROUGHPUT, None, {}, verified, hosts=records)
        values.append([finalist.value(Concurrency(8)) for finalist in finals.all])
    assert values[0] == values[1]


def test_effects_are_found_and_are_opposite_on_throughput_and_latency() -> None:
    effects = [0.10, 0.02, -0.04, -0.08]
    found = HostEffects.of(*study_of(effects, rounds=12, noise=0.01))
    for host, effect in enumerate(effects):
        assert found.throughput(f"h{host}").mean == pytest.approx(effect, abs=0.02)
        assert found.latency(f"h{host}").mean == pytest.approx(-effect, abs=0.02)
    assert sum(found.throughput(f"h{host}").mean for host in range(4)) == pytest.approx(0.0, abs=1e-9)
    assert found.on_throughput.between == pytest.approx(np.std(effects), abs=0.02)


def test_one_launch_on_each_host_is_shrunk_and_more_are_trusted() -> None:
    once, often = (HostEffects.of(*study_of([0.1, -0.1], rounds=rounds)).throughput("h0") for rounds in (0, 16))
    assert 0.0 < once.mean < 0.09 < often.mean < 0.11
    assert once.deviation > 2 * often.deviation


def test_an_unknown_host_may_be_as_different_as_the_others() -> None:
    found = HostEffects.of(*study_of([0.1, -0.1], rounds=16))
    assert found.throughput("new").mean == 0.0
    assert found.throughput("new").deviation == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("classes", [("", ""), ("", "old"), ("old", "older")])
def test_without_a_launch_of_the_baseline_hosts_may_differ(classes: tuple[str, str]) -> None:
    records = [HostRecord(name=name, host_class=of) for name, of in zip("ab", classes, strict=True)]
    for trials in ([], [trial(0, failure=Cause.OUT_OF_MEMORY)]):
        found = HostEffects.of(records, trials, ())
        assert found.throughput("a") == found.latency("b") == Speed(0.0, 0.05)
    found = HostEffects.of(records, [trial(0, point(1, 100, 10)).model_copy(update={"host": "a"})], ())
    assert found.throughput("a").mean == pytest.approx(0.0)


def test_a_disturbed_launch_counts_little() -> None:
    records, trials, verified = study_of([0.05, 0.0, -0.05], rounds=12, noise=0.01)
    before = HostEffects.of(records, trials, verified)
    disturbed = verified[0].model_copy(update={"rounds": (point(8, 1, 900), *verified[0].rounds[1:])})
    after = HostEffects.of(records, trials, [disturbed, verified[1]])
    for host in ("h0", "h1", "h2"):
        assert after.throughput(host).mean == pytest.approx(before.throughput(host).mean, abs=0.08)


def test_another_class_has_an_effect_of_its_own_and_does_not_move_the_first() -> None:
    effects = [0.03, -0.03, -0.7, -0.66]
    found = HostEffects.of(*study_of(effects, rounds=16, noise=0.01, classes={2: "old", 3: "old"}))
    for host, effect in enumerate(effects):
        assert found.throughput(f"h{host}").mean == pytest.approx(effect, abs=0.03)
    assert found.on_throughput.between < 0.06
    # A class without a launch of the baseline may be anything.
    records, trials, verified = study_of([0.0, 0.0])
    unknown = HostEffects.of([*records, HostRecord(name="h9", host_class="old")], trials, verified)
    assert unknown.throughput("h9").deviation >= 0.5


def test_at_a_rate_hosts_differ_in_latency() -> None:
    rate = RequestRate(200.0)

    def launch(ms: float) -> OperatingPoint:
        return point(rate, 200, ms, kept_up=True)

    trials = [trial(0, launch(10.0)).model_copy(update={"host": "a"})]
    records = [HostRecord(name="a"), HostRecord(name="b")]
    verified = Verification(trial=0, load=rate)
    for number in range(1, 13):
        verified = verified.with_round(launch(10.0 if number % 2 else 12.0), number, "a" if number % 2 else "b")
    found = HostEffects.of(records, trials, [verified])
    quick = Objective.quickest(Statistic.parse("p99"), 200.0)
    assert found.merit("a", quick).mean == pytest.approx(0.5 * math.log(1.2), abs=0.02)
    assert found.throughput("a").mean == pytest.approx(0.0, abs=0.01)


def test_of_what_the_search_measured_on_a_quick_host_less_is_expected() -> None:
    records, _, _ = study_of([0.15, -0.15])
    # Twelve launches of the baseline make the effects of the hosts known.
    baseline = Verification(trial=0, load=Concurrency(8))
    for number in range(1, 13):
        host = number % 2
        baseline = baseline.with_round(point_on(-0.15 if host else 0.15), number, f"h{host}")
    trials = [
        trial(0, point_on(0.15)).model_copy(update={"host": "h0"}),
        trial(1, point_on(0.15, 200)).model_copy(update={"host": "h0"}),
        trial(2, point_on(-0.15, 230)).model_copy(update={"host": "h1"}),
    ]
    assert trials[1].curve[0].throughput.value > trials[2].curve[0].throughput.value

    def best(hosts: Sequence[HostRecord]) -> int:
        known = trials if hosts else [each.model_copy(update={"host": ""}) for each in trials]
        verified = baseline if hosts else baseline.model_copy(update={"hosts": ()})
        finals = Finals(known, NO_LIMIT, THROUGHPUT, None, {}, [verified], hosts=hosts)
        return max(finals.all, key=lambda finalist: finalist.value(Concurrency(8)).mean).number

    assert best(records) == 2
    assert best(()) == 1


def test_the_spread_between_launches_does_not_contain_that_between_hosts() -> None:
    records, trials, verified = study_of([0.15, 0.05, -0.05, -0.15], rounds=16, noise=0.02)
    spreads = []
    for hosts in (records, ()):
        known = trials if hosts else [each.model_copy(update={"host": ""}) for each in trials]
        told = verified if hosts else [each.model_copy(update={"hosts": ()}) for each in verified]
        spreads.append(Finals(known, NO_LIMIT, THROUGHPUT, None, {}, told, hosts=hosts).spread.deviation)
    with_hosts, without = spreads
    assert with_hosts < 0.06
    assert without > 0.1


@pytest.mark.parametrize("between", [0.0, 0.05, pytest.param(0.15, marks=pytest.mark.statistics)])
def test_intervals_of_effects_cover_them(between: float) -> None:
    rng, inside = np.random.default_rng(0), []
    for _ in range(100):
        effects = between * rng.standard_normal(4)
        effects -= effects.mean()
        found = HostEffects.of(*study_of(effects.tolist(), rounds=8, noise=0.05, rng=rng))
        speeds = [found.throughput(f"h{host}") for host in range(4)]
        inside += [abs(s.mean - effect) <= 1.96 * s.deviation for s, effect in zip(speeds, effects, strict=True)]
    assert float(np.mean(inside)) > 0.9
