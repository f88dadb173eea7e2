"""Which hosts get no more work; no server is needed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from support.builders import point, trial

from tuner.core.loads import Concurrency, RequestRate
from tuner.measure.points import OperatingPoint
from tuner.measure.quality_warnings import QualityCheck, QualityWarning
from tuner.measure.trial import TrialResult
from tuner.recommend.drained import Drain, to_drain
from tuner.recommend.host_effects import BaselineLaunch, HostRecord
from tuner.recommend.verification import Verification

HOSTS = ("a", "b", "c")
EFFECTS = {"a": 0.0, "b": 0.12, "c": -0.08}


def measured(speed: float, load: int | RequestRate = 8) -> OperatingPoint:
    if isinstance(load, RequestRate):
        return point(load, load.per_s, 10 / math.exp(speed), kept_up=True)
    return point(load, 100 * math.exp(speed), 10 / math.exp(speed))


def records(
    *, classes: Sequence[str] = ("", "", ""), drained: str = "", load: int | RequestRate = 8
) -> list[HostRecord]:
    return [
        HostRecord(
            name=host,
            host_class=of,
            launches=() if host == "a" else (BaselineLaunch(curve=(measured(EFFECTS[host], load),), at=1.0),),
            drained="it is gone" if host == drained else None,
        )
        for host, of in zip(HOSTS, classes, strict=True)
    ]


def trials(load: int | RequestRate = 8) -> list[TrialResult]:
    baseline = trial(0, measured(0.0, load)).model_copy(update={"host": "a"})
    others = [
        trial(n, measured(0.3 + EFFECTS[HOSTS[n % 3]], load)).model_copy(update={"host": HOSTS[n % 3]})
        for n in range(1, 10)
    ]
    return [baseline, *others]


def rounds(
    count: int,
    shift: float = 0.0,
    *,
    since: int = 1,
    of: Sequence[str] = ("b",),
    noise: float = 0.01,
    rng: np.random.Generator | None = None,
    load: int | RequestRate = 8,
) -> Verification:
    """Rounds of the baseline, in turn on each host; from a round on, some hosts are faster."""
    rng = rng or np.random.default_rng(0)
    verification = Verification(trial=0, load=Concurrency(load) if isinstance(load, int) else load)
    for number in range(1, count + 1):
        host = HOSTS[number % 3]
        change = shift if host in of and number >= since else 0.0
        launched = measured(EFFECTS[host] + change + noise * rng.standard_normal(), load)
        verification = verification.with_round(launched, number, host)
    return verification


def test_hosts_that_differ_do_not_drift() -> None:
    assert to_drain(records(), trials(), [rounds(24)]) is None
    assert to_drain((), [trial(0, point(1, 100, 10))], ()) is None
    assert to_drain([*records(), HostRecord(name="new")], trials(), [rounds(24)]) is None


@pytest.mark.parametrize("load", [8, RequestRate(100.0)])
def test_a_host_that_became_slower_is_drained(load: int | RequestRate) -> None:
    told = to_drain(records(load=load), trials(load), [rounds(30, -0.35, since=13, load=load)])
    assert told is not None
    assert told.host == "b"
    assert told.reason.startswith("its baseline became 3")
    assert told.reason.endswith(" slower for the last 6 launches (99 % confidence)")
    # The trials were measured before.
    assert told.trials == ()


def test_what_changed_since_the_first_launch_is_measured_again() -> None:
    told = to_drain(records(), trials(), [rounds(30, 0.4)])
    assert told == Drain("b", "its baseline became 49% faster for the last 10 launches (99 % confidence)", (1, 4, 7))


def test_what_changed_everywhere_is_no_fault_of_a_host() -> None:
    assert to_drain(records(), trials(), [rounds(30, -0.4, since=13, of=HOSTS)]) is None


def test_one_disturbed_launch_is_no_drift() -> None:
    quiet = rounds(24)
    disturbed = [*quiet.rounds]
    disturbed[-3] = measured(-2.0)
    assert to_drain(records(), trials(), [quiet.model_copy(update={"rounds": tuple(disturbed)})]) is None


def test_a_small_drift_does_no_harm() -> None:
    assert to_drain(records(), trials(), [rounds(60, -0.03, since=20, noise=0.001)]) is None


def test_the_last_host_of_a_class_is_kept() -> None:
    drifted = [rounds(30, -0.4)]
    assert to_drain(records(), trials(), drifted) is not None
    assert to_drain(records(classes=("", "old", "")), trials(), drifted) is None
    assert to_drain(records(drained="b"), trials(), drifted) is None


@pytest.mark.slow
def test_hosts_are_rarely_drained_for_nothing() -> None:
    """Over all looks, at most 1 % of studies are drained; of 60, at most 3 with 99.7 % probability."""
    rng, drained = np.random.default_rng(0), 0
    for _ in range(60):
        whole = rounds(18, noise=0.08, rng=rng)
        for count in range(6, 19, 3):
            part = {name: getattr(whole, name)[:count] for name in ("rounds", "numbers", "hosts")}
            if to_drain(records(), trials(), [whole.model_copy(update=part)]):
                drained += 1
                break
    assert drained <= 3


def warned(check: QualityCheck, result: TrialResult) -> TrialResult:
    warning = QualityWarning(check=check, reason="75 % of the cores are busy")
    return result.model_copy(
        update={"curve": tuple(p.model_copy(update={"warnings": (warning,)}) for p in result.curve)}
    )


def test_a_host_whose_launches_fail_quality_checks_again_and_again_is_drained() -> None:
    loaded = [warned(QualityCheck.MACHINE_LOAD, t) if t.host == "b" else t for t in trials()]
    told = to_drain(records(), loaded, ())
    assert told == Drain("b", "its last 3 launches failed quality checks (load from elsewhere)", (1, 4, 7))
    # A good launch in between, or warnings about configs, are no reason.
    better = [t if t.number == 4 else each for t, each in zip(trials(), loaded, strict=True)]
    assert to_drain(records(), better, ()) is None
    client = [warned(QualityCheck.CLIENT_BOUND, t) if t.host == "b" else t for t in trials()]
    assert to_drain(records(), client, ()) is None


def test_warnings_everywhere_are_no_fault_of_a_host() -> None:
    loaded = [warned(QualityCheck.MACHINE_LOAD, t) for t in trials()]
    assert to_drain(records(), loaded, ()) is None
