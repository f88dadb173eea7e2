from __future__ import annotations

import pytest
from support.builders import interval, point, trial

from tuner.core.loads import Concurrency, Ramp, RequestRate
from tuner.core.objectives import Objective
from tuner.core.slo import SLO, Percentile, Statistic
from tuner.measure.gpu_view import GpuUsage, GpuView
from tuner.recommend.certified import CertifiedRate
from tuner.recommend.front import TrialPoint
from tuner.recommend.host_effects import HostRecord
from tuner.recommend.recommend import Recommendation
from tuner.recommend.verification import Verification
from tuner.results.words import (
    certified_in_words,
    gain_in_words,
    gain_rests_on,
    latency,
    loads_in_words,
    missed_everywhere,
    missed_slo,
    point_in_words,
    rate,
    slo_in_words,
    slo_verdict_in_words,
    when_missed,
)
from tuner.stats.slo_verdict import SLOTest


@pytest.mark.parametrize(("value", "text"), [(3541.2, "3,541"), (100, "100"), (73.24, "73.2"), (0.5142, "0.514")])
def test_a_rate(value: float, text: str) -> None:
    assert rate(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.4123, "0.412 ms"), (12.34, "12.3 ms"), (1204.4, "1,204 ms")])
def test_a_latency(value: float, text: str) -> None:
    assert latency(value) == text


def test_a_point() -> None:
    assert point_in_words(point(16, 1234, 12.34), "p90") == "1,234 inferences/s, p90 9.87 ms at concurrency 16"


@pytest.mark.parametrize(("p99", "measured"), [(24, "p99 24 ms (21.6 to 26.4)"), (12, "p99 12 ms (10.8 to 13.2)")])
def test_an_open_verdict_says_what_was_measured(p99: float, measured: str) -> None:
    best = TrialPoint(trial(1, point(8, 100, p99)), point(8, 100, p99), verified=True)
    slo = SLO.parse(["p99=25ms"])
    assert slo_verdict_in_words(best, slo, of=3) == f"inconclusive: {measured}"
    assert slo_verdict_in_words(best, slo, of=3, launches=3) == f"inconclusive: 3 launches, {measured}"
    on_hosts = slo_verdict_in_words(best, slo, of=3, launches=3, hosts=2)
    assert on_hosts == f"inconclusive: 3 launches on 2 hosts, {measured}"


def _tested(*tests: tuple[Percentile, int]) -> TrialPoint:
    """A verified point with tests of 5,000 requests each: of which percentile against 25 ms, how many were over."""
    limits = tuple(
        SLOTest(percentile=percentile, limit_ms=25.0, requests=5_000, over=over, design_effect=1.0)
        for percentile, over in tests
    )
    tested = point(8, 100, 20).model_copy(update={"limits": limits})
    return TrialPoint(trial(1, tested), tested, verified=True)


def test_a_verdict_names_its_confidence() -> None:
    told = slo_verdict_in_words(_tested(("p99", 1)), SLO({"p99": 25.0}), of=3, launches=1)
    assert told == "held (99 % confidence): 1 launch, p99 20 ms (18 to 22)"


def test_an_open_verdict_is_about_the_limits_that_are_open() -> None:
    slo = SLO({"p90": 25.0, "p99": 25.0})
    told = slo_verdict_in_words(_tested(("p90", 490), ("p99", 1)), slo, of=3)
    assert told == "inconclusive: p90 16 ms (14.4 to 17.6)"


def test_a_limit_that_was_not_tested() -> None:
    assert (
        slo_verdict_in_words(_tested(("p99", 1)), SLO({"p99": 22.0}), of=3)
        == "held as measured; tested only for p99 <= 25 ms"
    )


@pytest.mark.parametrize(
    ("of", "verified", "words"),
    [
        (1, False, "not verified: launched once"),
        (3, False, "not verified: the best of 3 single measurements, likely too good"),
        (3, True, "verified on 2 launches"),
    ],
)
def test_how_sure_a_best_point_without_an_slo_is(of: int, words: str, *, verified: bool) -> None:
    best = TrialPoint(trial(1, point(8, 100, 20)), point(8, 100, 20), verified=verified)
    assert slo_verdict_in_words(best, SLO(), of=of, launches=2 * verified) == words


@pytest.mark.parametrize(
    ("classes", "certified_class", "words"),
    [(("", ""), "", ""), (("", "old"), "", " on hosts like w0"), (("", "old"), "old", " on hosts like w1")],
)
def test_a_certified_rate_is_of_a_class_of_hosts_where_classes_differ(
    classes: tuple[str, ...], certified_class: str, words: str
) -> None:
    hosts = [HostRecord(name=f"w{n}", host_class=of) for n, of in enumerate(classes)]
    rate_of = CertifiedRate(
        trial=1, load=Concurrency(8), point=point(RequestRate(310), 310, 20), host="w0", host_class=certified_class
    )
    told = certified_in_words(rate_of, SLO({"p99": 25.0}), hosts)
    assert told == f"certified 310 requests/s of Poisson arrivals within p99 <= 25 ms{words}"


def test_a_doubtful_point_names_the_gates() -> None:
    assert point_in_words(point(2, 100, 10, errors=3), "p99") == (
        "100 inferences/s, p99 10 ms at concurrency 2 (quality warning: failed requests)"
    )


def test_a_gain() -> None:
    assert gain_in_words(interval(3.456, 0.05)) == "3.46 x the baseline's throughput (3.28 to 3.63)"


def test_a_point_of_an_open_loop() -> None:
    at_a_rate = point(RequestRate(500), 498.6, 12.34)
    assert point_in_words(at_a_rate, "p99") == "499 inferences/s, p99 12.3 ms at 500 requests/s"


def test_what_is_asked() -> None:
    assert slo_in_words(SLO({"p99": "25ms"})) == "holds p99 <= 25 ms"
    assert slo_in_words(SLO()) == "answers every request"


def test_a_column_of_loads() -> None:
    closed, open_, other = point(1_000), point(RequestRate(1_500)), point(Ramp(1, 20, 3))
    assert loads_in_words([closed, closed]) == ("concurrency", ["1000", "1000"])
    assert loads_in_words([open_]) == ("requests/s", ["1,500"])
    assert loads_in_words([closed, open_, other]) == (
        "load",
        ["concurrency 1000", "1500 requests/s", "1 to 20 requests/s"],
    )


def test_a_config_as_it_is_may_hold_a_limit_once_and_miss_it_again() -> None:
    baseline = trial(0, point(8, 300, 20))
    again = [Verification(trial=0, load=Concurrency(8), rounds=(point(8, 300, 30),), numbers=(1,))]
    assert when_missed(baseline, SLO({"p99": 25.0}), again) == "when relaunched"
    assert when_missed(baseline, SLO({"p99": 15.0}), again) == "at every measured load"


def test_nothing_is_said_of_what_was_not_measured_again() -> None:
    fails = trial(0, point(8, 300, 20, errors=3))
    other = [Verification(trial=1, load=Concurrency(8), rounds=(point(8, 300, 30),), numbers=(1,))]
    assert when_missed(fails, SLO(), ()) == "at every measured load"
    assert when_missed(fails, SLO(), other) == "at every measured load"


QUICK = Objective.quickest(Statistic.parse("p95"), 500.0)
PER_JOULE = Objective(metric="inferences_per_joule")


def test_a_gain_by_each_objective() -> None:
    gain = interval(1.8, 0.1)
    assert gain_in_words(gain, QUICK) == "1.80 x as quick as the baseline by p95 latency (1.62 to 1.98)"
    assert gain_in_words(gain, PER_JOULE) == "1.80 x the baseline's inferences per joule (1.62 to 1.98)"


def test_a_point_by_each_objective() -> None:
    view = GpuView(gpu="GPU 0", uuid="GPU-0", power_w=50.0)
    on_gpu = point(8, 300).model_copy(update={"gpu": GpuUsage(gpus=(view, view))})
    assert point_in_words(on_gpu, "p99", PER_JOULE) == "300 inferences/s (3 per joule), p99 10 ms at concurrency 8"
    per_gpu = Objective(metric="throughput_per_gpu")
    assert point_in_words(on_gpu, "p99", per_gpu) == "300 inferences/s (150 per GPU), p99 10 ms at concurrency 8"
    assert point_in_words(point(8, 300), "p99", per_gpu) == "300 inferences/s, p99 10 ms at concurrency 8"


def test_what_a_fixed_rate_asks() -> None:
    limit = SLO({"p99": "25ms"})
    assert slo_in_words(SLO(), QUICK) == "keeps up with 500 requests/s"
    assert slo_in_words(limit, QUICK) == "keeps up with 500 requests/s within p99 <= 25 ms"
    assert missed_slo(limit, QUICK) == "does not keep up with 500 requests/s within p99 <= 25 ms"
    assert missed_everywhere(SLO(), QUICK) == "does not keep up with 500 requests/s"
    assert missed_everywhere(limit) == "violates p99 <= 25 ms at every load"
    late = trial(0, point(RequestRate(500), 400, 900, kept_up=False))
    assert when_missed(late, SLO(), (), QUICK) == "in its trial"


def test_the_two_latencies_of_a_gain_are_told_where_they_differ() -> None:
    points = [TrialPoint(trial(number), point(RequestRate(500), 500, p99)) for number, p99 in ((0, 40.0), (1, 10.0))]
    quick = Objective.quickest(Statistic.parse("p99"), 500.0)
    found = Recommendation(SLO(), points[0], points[1], interval(3.5), (), 3, (1e3 / 12, 1e3 / 42), quick)
    assert gain_rests_on(found, verified=True) == ", 3 rounds side by side: 42 over 12 ms"
