"""Trials of hosts that are faster or slower than others."""

from __future__ import annotations

import math

import numpy as np
import pytest
from support.builders import space
from support.histories import Past
from support.known_truth import Truth

from tuner.core.slo import SLO
from tuner.measure.trial import TrialResult
from tuner.recommend.host_effects import NO_HOSTS, Effects, HostEffects
from tuner.recommend.speed import Speed
from tuner.search.goal import Goal
from tuner.search.samplers import GridSampler
from tuner.search.twin.effects import Effects as ParameterEffects
from tuner.search.twin.factor_model import FactorModel, Points
from tuner.search.twin.observed_trial import observed_trial, on_reference
from tuner.search.twin_sampler import TwinSampler, calibrations
from tuner.space.space import SearchSpace

SPACE = """
schema: 1
parameters:
  dynamic_batching: {ladder: [off, on]}
  max_batch_size: {ladder: [4, 16, 64]}
  instance_group.count: {field: "instance_group[*].count", ladder: [1, 2, 4]}
"""
P99_40 = SLO({"p99": 40.0})
TRUTH = Truth(5.0, 0.2, neighbour=0.3)
FASTER = 1.15


def effects(deviation: float = 0.0) -> HostEffects:
    """Host `b` is faster by 15 %."""
    log = math.log(FASTER)
    return HostEffects(
        Effects({"a": Speed(0.0, deviation), "b": Speed(log, deviation)}),
        Effects({"a": Speed(0.0, deviation), "b": Speed(-log, deviation)}),
    )


def on_host(trial: TrialResult, host: str) -> TrialResult:
    """The trial as host `b` measures it, when `a` has measured it as it is."""
    if host == "a":
        return trial.model_copy(update={"host": "a"})
    log = math.log(FASTER)
    reverse = HostEffects(Effects({"": Speed(-log)}), Effects({"": Speed(log)}))
    return on_reference(trial, reverse).model_copy(update={"host": "b"})


def past(built: SearchSpace, hosts: str, known: HostEffects) -> Past:
    """The baseline, the calibration and some others, each measured by one of some hosts."""
    calibration = next(calibrations(built))
    others = [each for each in built.assignments() if each not in (built.baseline, calibration)]
    some = [others[place] for place in np.linspace(0, len(others) - 1, len(hosts) - 2).astype(int)]
    assignments = [built.baseline, calibration, *some]
    told = [TRUTH.trial(built, number, each) for number, each in enumerate(assignments)]
    trials = [on_host(trial, host) for trial, host in zip(told, hosts, strict=True)]
    return Past(built, P99_40, trials, host_effects=known)


def twin(built: SearchSpace) -> TwinSampler:
    return TwinSampler(built, 0, Goal(P99_40, 1, 128), GridSampler(built), lambda _text: None)


def test_a_trial_of_a_faster_host_is_what_the_reference_measures() -> None:
    built = space(SPACE)
    usual = TRUTH.trial(built, 0, built.baseline)
    faster = on_host(usual, "b")
    assert faster.curve[0].throughput.value == pytest.approx(FASTER * usual.curve[0].throughput.value)
    assert faster.curve[0].latency_ms["p99"].value == pytest.approx(usual.curve[0].latency_ms["p99"].value / FASTER)
    corrected = observed_trial(faster, "p99", hosts=effects(0.02))
    expected = observed_trial(usual, "p99")
    assert corrected
    assert expected
    assert (corrected.host, corrected.host_deviations) == ("b", (0.02, 0.02))
    for one, other in zip(corrected.levels, expected.levels, strict=True):
        assert one.throughput == pytest.approx(other.throughput)
        assert one.latency_ms == pytest.approx(other.latency_ms)
        assert one.executions[0].service_ms == pytest.approx(other.executions[0].service_ms)
        assert one.overhead_ms == pytest.approx(other.overhead_ms)


def test_without_effects_a_trial_is_taken_as_it_is() -> None:
    built = space(SPACE)
    trial = TRUTH.trial(built, 0, built.baseline)
    assert on_reference(trial, NO_HOSTS) is trial
    observed = observed_trial(trial, "p99")
    assert observed
    assert observed.host_deviations == (0.0, 0.0)


@pytest.mark.slow
def test_known_effects_change_no_proposal() -> None:
    built = space(SPACE)
    usual = past(built, "aaaa", NO_HOSTS)
    told = past(built, "abab", effects())
    proposed = twin(built).propose(usual, usual.seen)
    assert twin(built).propose(told, told.seen) == proposed


@pytest.mark.slow
def test_effects_that_become_known_change_what_is_known_of_earlier_trials() -> None:
    built = space(SPACE)
    one, fresh = twin(built), twin(built)
    before = past(built, "abab", NO_HOSTS)
    one.propose(before, before.seen)
    after = past(built, "abab", effects(0.1))
    assert one.propose(after, after.seen) == fresh.propose(after, after.seen)


class TestTrialsOfAHostShareItsUnknownEffect:
    def model(self, hosts: list[int], deviation: float) -> FactorModel:
        count = len(hosts)
        owners = np.arange(count)
        points = Points(np.zeros((count, 6)), np.zeros((count, 2)), owners, np.zeros((count, 0), np.int64))
        same = np.equal.outer(hosts, hosts)
        together = np.tile(deviation**2 * same, (2, 1, 1)) if deviation else None
        zeros = np.zeros((count, 2))
        return FactorModel(points, ParameterEffects([]), zeros, zeros + 0.01, 0, together=together)

    def deviation(self, model: FactorModel) -> float:
        point = Points(np.zeros((1, 6)), np.zeros((1, 2)), np.zeros(1, np.int64), np.zeros((1, 0), np.int64))
        return float(np.mean([each.deviation for each in model.at(point)]))

    def test_trials_of_one_host_tell_less_than_those_of_several(self) -> None:
        known = self.deviation(self.model([0, 0, 0, 0], 0.0))
        several = self.deviation(self.model([0, 1, 2, 3], 0.2))
        one = self.deviation(self.model([0, 0, 0, 0], 0.2))
        assert known < several < one

    def test_what_is_believed_is_no_measurement_of_a_host(self) -> None:
        model = self.model([0, 0, 0, 0], 0.2)
        before = self.deviation(model)
        model.believe(Points(np.zeros((1, 6)), np.zeros((1, 2)), np.zeros(1, np.int64), np.zeros((1, 0), np.int64)))
        assert self.deviation(model) < before
