"""Results in plain English, for the terminal, the report and the result files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tuner.core.loads import Concurrency, RequestRate
from tuner.core.objectives import THROUGHPUT, Objective
from tuner.core.quantities import format_ms, format_number
from tuner.core.record import Interval
from tuner.core.slo import SLO, Percentile
from tuner.measure.points import OperatingPoint
from tuner.measure.quality_warnings import QualityCheck
from tuner.measure.trial import TrialResult
from tuner.recommend.certified import CertifiedRate
from tuner.recommend.front import TrialPoint
from tuner.recommend.host_effects import HostRecord
from tuner.recommend.recommend import Recommendation, is_certain
from tuner.recommend.verification import Verification
from tuner.recommend.warm_up import WarmUp
from tuner.search.stopping import BUDGET_SPENT
from tuner.stats.slo_verdict import CONFIDENCE, Verdict
from tuner.study.study import Study

_ONCE = "not verified: launched once"
_EACH = {"throughput_per_gpu": "per GPU", "inferences_per_joule": "per joule"}


def rate(value: float) -> str:
    """A rate in inferences/s: `3,541`, `73.2`, `0.514`."""
    return format_number(value)


def latency(value_ms: float) -> str:
    """A latency with its unit: `0.412 ms`, `12.3 ms`, `1,204 ms`."""
    return format_ms(value_ms)


def point_in_words(point: OperatingPoint, percentile: Percentile, objective: Objective = THROUGHPUT) -> str:
    """An operating point: `1,234 inferences/s, p99 12.3 ms at concurrency 16`, and its quality warnings.

    The value of another objective is added: `1,234 inferences/s (617 per GPU)`.
    """
    at = latency(point.latency_ms[percentile].value)
    warnings = (
        f" (quality warning: {', '.join(warning.check.words for warning in point.warnings)})" if point.warnings else ""
    )
    value = point.value(objective)
    each = each_in_words(objective)
    per = f" ({format_number(value.value)} {each})" if each and value else ""
    return f"{rate(point.throughput.value)} inferences/s{per}, {percentile} {at} at {point.load}{warnings}"


def each_in_words(objective: Objective) -> str:
    """The unit of a value that inferences are related to, `per GPU`; empty for throughput and latency."""
    return _EACH.get(objective.metric, "")


def warnings_in_words(point: OperatingPoint) -> Iterator[str]:
    """A line for each quality warning of an operating point, and for each reason for its re-measurement.

    `at concurrency 16: 5 of 500 failed, most with INTERNAL: no; also when re-measured`.
    """
    failed_before = {warning.check for warning in point.discarded}
    for warning in point.warnings:
        yield f"at {point.load}: {warning.reason}{'; also when re-measured' if warning.check in failed_before else ''}"
    failed = {warning.check for warning in point.warnings}
    for warning in point.discarded:
        if warning.check not in failed:
            yield f"at {point.load}: re-measured; the first time: {warning.reason}"


def warnings_of_points(points: Sequence[tuple[str, OperatingPoint]]) -> Iterator[str]:
    """A line for each quality warning of operating points.

    Load from elsewhere concerns the machine, not a point. So it has one line for all points, with the highest load.

    Args:
        points: The points, each with the text that begins its lines.
    """
    busy: list[tuple[float, str]] = []
    for name, point in points:
        of_machine = [warning.reason for warning in point.warnings if warning.check is QualityCheck.MACHINE_LOAD]
        taken = (point.machine.elsewhere_cores or 0.0) + point.machine.stolen_cores if point.machine else 0.0
        busy += [(taken, f"{name}at {point.load}: {reason}") for reason in of_machine]
        others = [warning for warning in point.warnings if warning.check is not QualityCheck.MACHINE_LOAD]
        for line in warnings_in_words(point.model_copy(update={"warnings": tuple(others)})):
            yield f"{name}{line}"
    if busy:
        most = max(busy, key=lambda pair: pair[0])[1]
        yield f"{most} (the highest of {len(busy)} points with load from elsewhere)" if len(busy) > 1 else most


def slo_in_words(slo: SLO, objective: Objective = THROUGHPUT) -> str:
    """The condition for the best config: `holds p99 <= 25 ms`, or, without an SLO, `answers every request`.

    At a fixed rate: `keeps up with 500 requests/s`, and ` within p99 <= 25 ms`.
    """
    if objective.rate is not None:
        return f"keeps up with {objective.rate:g} requests/s{_within(slo)}"
    return f"holds {slo}" if slo.root else "answers every request"


def _within(slo: SLO) -> str:
    return f" within {slo}" if slo.root else ""


def certified_in_words(certified: CertifiedRate, slo: SLO, hosts: Sequence[HostRecord] = ()) -> str:
    """The certified rate, or why there is none: `certified 310 requests/s of Poisson arrivals within p99 <= 40 ms`.

    Args:
        certified: The result of certifying.
        slo: The limits.
        hosts: The hosts of the study. If there are several classes, the text says for which one the rate holds.
    """
    if certified.point is None:
        return f"not certified: {certified.reason}"
    text = f"certified {rate(certified.point.load.level)} requests/s of Poisson arrivals{_within(slo)}"
    like = class_in_words(hosts, certified.host_class)
    return f"{text} on {like}" if like else text


def class_in_words(hosts: Sequence[HostRecord], host_class: str = "") -> str:
    """The hosts of a class, `hosts like worker-1`; empty if all hosts are of one class."""
    named = [host.name for host in hosts if host.host_class == host_class]
    return f"hosts like {named[0]}" if named and len({host.host_class for host in hosts}) > 1 else ""


def warm_up_in_words(warm_up: WarmUp, *, offered: bool = True) -> str:
    """What a warm-up saves and costs, or why none is offered.

    Such as `first answer 3.1 s; 12 ms with a model_warmup, where the launch takes 5.2 s, not 2.1 s (export ...)`.

    Args:
        warm_up: The warm-up.
        offered: Whether to say how to get it.
    """
    without, warmed, of = warm_up.without, warm_up.warmed, duration_in_words
    if warm_up.reason or without is None or warmed is None:
        return f"first answer {of(warm_up.searched_s)}; no model_warmup is offered: {warm_up.reason}"
    launches = f"the launch takes {of(warmed.launch_s)}, not {of(without.launch_s)}"
    answers = f"first answer {of(without.answer_s)}; {of(warmed.answer_s)} with a model_warmup"
    return f"{answers}, where {launches}{' (export --with-warmup)' * offered}"


def duration_in_words(seconds: float) -> str:
    """A duration with two or three digits: `3.1 s`, `12.3 ms`."""
    return f"{seconds:.2g} s" if seconds >= 1 else f"{format_number(seconds * 1e3)} ms"


def no_candidate_in_words(study: Study) -> str:
    """Why no candidate was measured, and the fix; empty if one was measured."""
    if len(study.trials) != 1 or study.trials[0].number:
        return ""
    only = "only the baseline was measured"
    if study.ended is None:
        return f"none yet: {only}"
    more = "; to try candidates, use --resume with a longer --budget" if study.ended == BUDGET_SPENT else ""
    return f"none: {only} ({study.ended}){more}"


def slo_verdict_in_words(best: TrialPoint, slo: SLO, *, of: int, launches: int = 0, hosts: int = 1) -> str:
    """The verdict on the SLO: `held (99 % confidence): 3 launches, p99 20 ms (18 to 22)`, or why there is no verdict.

    Args:
        best: The recommended point.
        slo: The limits.
        of: Number of trials from which it was chosen.
        launches: Number of launches on which it was verified; 0: omitted from the text.
        hosts: Number of hosts of these launches, which the intervals refer to.
    """
    if not best.verified:
        return f"not verified: the best of {of} single measurements, likely too good" if of > 1 else _ONCE
    counted = launches_in_words(launches, hosts) if launches else ""
    if not slo.root:
        return f"verified on {counted}" if counted else "verified"
    tested = {test.limit for test in best.point.limits}
    if tested and tested != set(slo.limits):
        other = SLO({test.limit.key: test.limit_ms for test in best.point.limits})
        return f"held as measured; tested only for {other}"
    latencies = ", ".join(_with_interval(best.point, percentile) for percentile in _in_question(best.point, slo))
    measured = ", ".join(part for part in (counted, latencies) if part)
    return f"held ({CONFIDENCE}): {measured}" if is_certain(best, slo) else f"inconclusive: {measured}"


def _in_question(point: OperatingPoint, slo: SLO) -> list[Percentile]:
    """The percentiles whose limits the tests leave open; if there are none, the SLO's percentile."""
    verdicts = {test.limit.statistic: test.verdict for test in point.limits}
    open_ = [limit.percentile for limit in slo.limits if verdicts.get(limit.statistic) is Verdict.OPEN]
    return open_ or [slo.percentile]


def _with_interval(point: OperatingPoint, percentile: Percentile) -> str:
    interval = point.latency_ms[percentile]
    return f"{percentile} {latency(interval.value)} ({format_number(interval.low)} to {format_number(interval.high)})"


def launches_in_words(launches: int, hosts: int = 1) -> str:
    """A number of launches: `1 launch`, `3 launches`, `6 launches on 2 hosts`."""
    counted = f"{launches} {'launch' if launches == 1 else 'launches'}"
    return f"{counted} on {hosts} hosts" if hosts > 1 else counted


def launches_and_hosts_of(study: Study, best: TrialPoint) -> tuple[int, int]:
    """Number of launches on which a point was verified, and of their hosts; (0, 0): it was not."""
    at = best.trial.number, best.point.load
    hosts = next((each.hosts_of_rounds for each in study.verified if (each.trial, each.load) == at), ())
    return len(hosts), len(set(hosts))


def when_missed(
    baseline: TrialResult, slo: SLO, verified: Iterable[Verification], objective: Objective = THROUGHPUT
) -> str:
    """The condition under which the baseline violates the SLO: `at every measured load`, or `when relaunched`."""
    again = any(verification.trial == baseline.number for verification in verified)
    if again and any(point.holds(slo) and point.kept_up is not False for point in baseline.curve):
        return "when relaunched"
    return "at every measured load" if objective.rate is None else "in its trial"


def missed_slo(slo: SLO, objective: Objective = THROUGHPUT) -> str:
    """The violated condition of a config: `violates p99 <= 25 ms`, or, without an SLO, `fails some requests`.

    At a fixed rate: `does not keep up with 500 requests/s`, and ` within p99 <= 25 ms`.
    """
    if objective.rate is not None:
        return f"does not keep up with {objective.rate:g} requests/s{_within(slo)}"
    return f"violates {slo}" if slo.root else "fails some requests"


def missed_everywhere(slo: SLO, objective: Objective = THROUGHPUT) -> str:
    """The violated condition of a config at all loads of its trial."""
    return missed_slo(slo, objective) + (" at every load" if objective.rate is None else "")


def loads_in_words(points: Sequence[OperatingPoint]) -> tuple[str, list[str]]:
    """The title of a column of loads, and its cells: plain numbers when all loads are of one kind."""
    loads = [point.load for point in points]
    if all(isinstance(load, Concurrency) for load in loads):
        return "concurrency", [f"{load.level:g}" for load in loads]
    if all(isinstance(load, RequestRate) for load in loads):
        return "requests/s", [f"{load.level:,g}" for load in loads]
    return "load", [str(load) for load in loads]


def gain_rests_on(recommendation: Recommendation, *, verified: bool) -> str:
    """The basis of a gain: its rounds, and its two values if they differ from those of the two points.

    `, 3 rounds side by side`, `, not side by side: 400 over 112 inferences/s, from curves through all points`.

    Args:
        recommendation: A recommendation with a gain. The text is empty if the baseline is recommended.
        verified: Whether anything was verified.
    """
    best, baseline = recommendation.best, recommendation.baseline
    merits, pairs, objective = recommendation.merits, recommendation.pairs, recommendation.objective
    if merits is None or best is None or baseline is None or best == baseline:
        return ""
    beside = f", {pairs} rounds side by side" if pairs else ", not side by side" if verified else ""
    of_points = best.merit(objective).value, baseline.merit(objective).value
    of, shown = (_quotient(two, objective) for two in (merits, of_points))
    if of == shown:
        return beside
    how = "" if pairs else ", from curves through all points"
    return f"{beside}{':' if beside else ','} {of} {objective.unit}{how}"


def _quotient(merits: tuple[float, float], objective: Objective) -> str:
    """Two values whose quotient is a gain: `400 over 112`; of latencies, the baseline's comes first."""
    best, baseline = (objective.value_of(merit) for merit in merits)
    values = (best, baseline) if objective.maximizes else (baseline, best)
    return " over ".join(map(format_number, values))


def gain_in_words(gain: Interval, objective: Objective = THROUGHPUT) -> str:
    """A gain with its 95 % interval: `3.46 x the baseline's throughput (3.31 to 3.62)`.

    Of a latency: `1.80 x as quick as the baseline by p99 latency (1.61 to 2.02)`.
    """
    of = "the baseline's {}" if objective.maximizes else "as quick as the baseline by {}"
    return f"{gain.value:.2f} x {of.format(objective.words)} ({gain.low:.2f} to {gain.high:.2f})"
