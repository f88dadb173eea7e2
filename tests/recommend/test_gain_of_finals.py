"""What the gain is worth, on a simulated machine: both configs' truth is known at every load."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median

import numpy as np
import picks
import pytest

from tuner.core.record import Interval
from tuner.core.slo import SLO

_CANDIDATES, _SECONDS = 4, 150.0


@dataclass(frozen=True)
class Told:
    gain: Interval
    truth: float
    """The ratio of what each gives at its best load within the SLO."""

    @property
    def covers(self) -> bool:
        return self.gain.low <= self.truth <= self.gain.high


def tunings(runs: int, faster: float, noise: float, slower: float = 1.0) -> list[Told]:
    """The gains of tunings whose candidates are alike, and so many times as fast as the baseline.

    Args:
        runs: So many tunings.
        faster: As a factor, at every load.
        noise: From launch to launch.
        slower: The machine after the search, as a factor.
    """
    told = []
    for run in range(runs):
        rng = np.random.default_rng([7, run])
        baseline = picks.family(rng)[1]
        candidates = [baseline, *[baseline.slowed(1 / faster)] * (_CANDIDATES - 1)]
        machine = picks.Machine(noise, rng)
        trials, hosts = picks.search(machine, candidates)
        later = [each.slowed(slower) for each in candidates]
        gain = picks.finals(machine, later, trials, hosts, picks.Finals(_SECONDS, run)).gain
        if gain is not None:
            best = [picks.best_possible([each], noise, [0.0]) for each in later]
            told.append(Told(gain, best[1] / best[0]))
    assert len(told) > 0.9 * runs
    return told


@pytest.mark.parametrize("runs", [8, pytest.param(16, marks=pytest.mark.statistics)])
@pytest.mark.parametrize("limit", [SLO(), SLO({"p99": 25.0})], ids=["no SLO", "p99 <= 25 ms"])
class TestGain:
    @pytest.fixture(autouse=True)
    def _limit(self, limit: SLO, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(picks, "LIMIT", limit)

    @pytest.mark.parametrize("noise", [0.03, 0.08])
    def test_what_is_as_fast_at_every_load_is_told_as_no_gain(self, runs: int, noise: float) -> None:
        told = tunings(runs, 1.0, noise)
        assert sum(each.covers for each in told) >= 0.95 * len(told) - 1
        # One that seems to give less gives way to the baseline, so that what is left is a little above 1.
        assert abs(median(math.log(each.gain.value) for each in told)) < 0.03
        assert max(each.gain.value for each in told) < 1.27

    def test_a_real_gain_is_found_with_its_size(self, runs: int) -> None:
        told = tunings(runs, 1.6, 0.03)
        assert sum(each.covers for each in told) >= 0.95 * len(told) - 1
        assert abs(median(math.log(each.gain.value / each.truth) for each in told)) < 0.03
        assert all(each.gain.low > 1 for each in told)

    def test_a_machine_that_gets_slower_after_the_search_makes_no_gain_and_hides_none(self, runs: int) -> None:
        told = tunings(runs, 1.4, 0.05, slower=1.5)
        assert sum(each.covers for each in told) >= 0.95 * len(told) - 2
        assert abs(median(math.log(each.gain.value / each.truth) for each in told)) < 0.04
