"""Results in words, for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tuner.core.loads import Concurrency, RequestRate
from tuner.core.quantities import format_ms, format_number
from tuner.core.record import Interval
from tuner.core.slo import SLO, Percentile
from tuner.measure.doubts import Gate
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.recommend.certified import CertifiedRate
from tuner.recommend.front import TrialPoint
from tuner.recommend.recommend import NEAR, Recommendation, is_certain
from tuner.recommend.verification import Verification
from tuner.search.stopping import BUDGET_SPENT
from tuner.study.study import Study


def rate(value: float) -> str:
    """Inferences a second: `3,541`, `73.2`, `0.514`."""
    return format_number(value)


def latency(value_ms: float) -> str:
    """A latency: `0.412 ms`, `12.3 ms`, `1,204 ms`."""
    return format_ms(value_ms)


def point_in_words(point: OperatingPoint, percentile: Percentile) -> str:
    """An operating point: `1,234 inferences/s, p99 12.3 ms at concurrency 16`, and the gates that it has not passed."""
    at = latency(point.latency_ms[percentile].value)
    doubts = f" (doubtful: {', '.join(doubt.gate.words for doubt in point.doubts)})" if point.doubts else ""
    return f"{rate(point.throughput.value)} inferences/s, {percentile} {at} at {point.load}{doubts}"


def doubts_in_words(point: OperatingPoint) -> Iterator[str]:
    """Why an operating point is doubtful, and why it was measured again, a line each.

    `at concurrency 16: 5 of 500 failed, most with INTERNAL: no; twice`.
    """
    failed_before = {doubt.gate for doubt in point.discarded}
    for doubt in point.doubts:
        yield f"at {point.load}: {doubt.reason}{'; twice' if doubt.gate in failed_before else ''}"
    failed = {doubt.gate for doubt in point.doubts}
    for doubt in point.discarded:
        if doubt.gate not in failed:
            yield f"at {point.load}: measured twice, since once: {doubt.reason}"


def all_doubts_in_words(points: Sequence[tuple[str, OperatingPoint]]) -> Iterator[str]:
    """Why operating points are doubtful, a line each; of load from elsewhere, which is the machine's, one line for all.

    Args:
        points: With what to write before each one's lines.
    """
    busy: list[tuple[float, str]] = []
    for name, point in points:
        of_machine = [each.reason for each in point.doubts if each.gate is Gate.MACHINE_LOAD]
        taken = (point.machine.elsewhere_cores or 0.0) + point.machine.stolen_cores if point.machine else 0.0
        busy += [(taken, f"{name}at {point.load}: {reason}") for reason in of_machine]
        others = [each for each in point.doubts if each.gate is not Gate.MACHINE_LOAD]
        for line in doubts_in_words(point.model_copy(update={"doubts": tuple(others)})):
            yield f"{name}{line}"
    if busy:
        most = max(busy, key=lambda each: each[0])[1]
        yield f"{most} (the most of {len(busy)} points with load from elsewhere)" if len(busy) > 1 else most


def what_is_asked(slo: SLO) -> str:
    """What a best config does: `holds p99 <= 25 ms`, or, without a limit, `answers every request`."""
    return f"holds {slo}" if slo.root else "answers every request"


def certified_in_words(certified: CertifiedRate, slo: SLO) -> str:
    """What became of the certified rate: `certified 2,310 requests/s of Poisson arrivals within p99 <= 40 ms`."""
    if certified.point is None:
        return f"not certified: {certified.reason}"
    within = f" within {slo}" if slo.root else ""
    return f"certified {rate(certified.point.load.level)} requests/s of Poisson arrivals{within}"


def no_candidate_in_words(study: Study) -> str:
    """Why there is nothing to compare the config as it is with, and how to get more; empty where there is."""
    if len(study.trials) != 1 or study.trials[0].number:
        return ""
    only = "only the config as it is was measured"
    if study.ended is None:
        return f"none yet: {only}"
    more = "; a longer --budget, with --resume, tries candidates" if study.ended == BUDGET_SPENT else ""
    return f"none: {only} ({study.ended}){more}"


def how_sure(best: TrialPoint, slo: SLO, *, of: int) -> str:
    """How sure a recommendation is: `verified, and surely within p99 <= 25 ms`, or what speaks against that.

    Args:
        best: What is recommended.
        slo: The limits.
        of: How many trials it is the best of.
    """
    if not best.verified and of == 1:
        return "not verified: launched once"
    if not best.verified:
        return "not verified: the best of many single measurements, likely too good"
    if not slo.root:
        return "verified"
    if is_certain(best, slo):
        return f"verified, and surely within {slo}"
    tested = {test.limit for test in best.point.limits}
    if tested and tested != set(slo.limits):
        other = SLO({test.percentile: test.limit_ms for test in best.point.limits})
        return f"verified, but for {other}: that {slo} holds is what was measured, and was not tested"
    near = "" if best.point.holds(slo, slower=NEAR) else "it is near, "
    return f"verified; whether {slo} holds is not sure: {near}requests were few, or launches differ"


def when_missed(baseline: TrialResult, slo: SLO, verified: Iterable[Verification]) -> str:
    """Where a config as it is that is not recommended misses what is asked: `at every load that was measured`."""
    again = any(each.trial == baseline.number for each in verified)
    if again and any(point.holds(slo) for point in baseline.curve):
        return "when it was measured again"
    return "at every load that was measured"


def what_is_missed(slo: SLO) -> str:
    """What a config does that is never best: `breaks p99 <= 25 ms`, or, without a limit, `fails some requests`."""
    return f"breaks {slo}" if slo.root else "fails some requests"


def loads_in_words(points: Sequence[OperatingPoint]) -> tuple[str, list[str]]:
    """What to write above a column of loads, and in it: numbers where all are of one kind."""
    loads = [point.load for point in points]
    if all(isinstance(load, Concurrency) for load in loads):
        return "concurrency", [f"{load.level:g}" for load in loads]
    if all(isinstance(load, RequestRate) for load in loads):
        return "requests/s", [f"{load.level:,g}" for load in loads]
    return "load", [str(load) for load in loads]


def gain_rests_on(found: Recommendation, *, verified: bool) -> str:
    """What a gain is of: the rounds side by side, and the throughputs, where they are not those of the two points.

    `, 3 rounds side by side`, `, not side by side: 400 over 112 inferences/s, by the curves through all points`.

    Args:
        found: With a gain; of the baseline over itself there is nothing to say.
        verified: Whether anything was measured again.
    """
    if found.rates is None or found.best is None or found.baseline is None or found.best == found.baseline:
        return ""
    beside = f", {found.pairs} rounds side by side" if found.pairs else ", not side by side" if verified else ""
    of, shown = (
        " over ".join(map(rate, rates))
        for rates in (found.rates, (found.best.point.throughput.value, found.baseline.point.throughput.value))
    )
    if of == shown:
        return beside
    how = "" if found.pairs else ", by the curves through all points"
    return f"{beside}{':' if beside else ','} {of} inferences/s{how}"


def gain_in_words(gain: Interval) -> str:
    """A gain: `3.46 x the baseline's throughput (3.31 to 3.62)`."""
    return f"{gain.value:.2f} x the baseline's throughput ({gain.low:.2f} to {gain.high:.2f})"
