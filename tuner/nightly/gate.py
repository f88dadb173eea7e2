"""The gate: decides whether a candidate replaces the deployed config. It uses no server and no file."""

from __future__ import annotations

from collections.abc import Iterator

from tuner.core.quantities import format_ms, format_number
from tuner.core.record import Record
from tuner.measure.points import limits_together
from tuner.nightly.comparison import LEAST_PAIRS, Comparison
from tuner.results.words import missed_slo
from tuner.stats.slo_verdict import CONFIDENCE, Verdict


class Decision(Record):
    """The decision of the gate.

    Attributes:
        act: Whether to act on the improvement.
        reason: The reason in a sentence.
    """

    act: bool
    reason: str


def decide(comparison: Comparison | None, *, min_gain: float) -> Decision:
    """Act only if the lower bound of the gain exceeds `min_gain` and a test shows that the SLO holds.

    The bound is that of a 95 % interval, the test has 99 % confidence; both are corrected for all looks.

    Args:
        comparison: The comparison; None: the search found nothing better than the deployed config.
        min_gain: The least gain, as a share.
    """
    if comparison is None:
        return Decision(act=False, reason="the search found nothing better")
    if objection := next(_objections(comparison, min_gain), None):
        return Decision(act=False, reason=objection)
    held = f"; {comparison.slo} holds ({CONFIDENCE})" if comparison.slo.root else ""
    return Decision(act=True, reason=f"{_in_words(comparison)}{held}")


def _objections(comparison: Comparison, min_gain: float) -> Iterator[str]:
    """The objections to acting, the most important first."""
    pairs, gain, words = comparison.pairs, comparison.gain, _in_words(comparison)
    if comparison.failure:
        yield f"the candidate failed: {comparison.failure}"
    if gain is None or pairs < LEAST_PAIRS:
        yield f"time for only {pairs} pairs of launches; at least {LEAST_PAIRS} are needed"
    elif comparison.verdict is Verdict.BREAKS:
        yield f"the candidate {missed_slo(comparison.slo, comparison.objective)} ({CONFIDENCE}), at {words}"
    elif gain.low <= 1 + min_gain:
        yield f"gain not shown to exceed {min_gain:.1%} (95 % confidence): {words}"
    elif comparison.verdict is not Verdict.HOLDS:
        yield f"not shown that the candidate holds {comparison.slo}: {_undecided(comparison)}; {words}"


def _undecided(comparison: Comparison) -> str:
    """The latencies at each load, and the number of requests missing for its test: `p99 of 61 to 118 ms at ...`."""
    percentile, among = comparison.slo.percentile, len(comparison.loads)
    parts = []
    for load in comparison.loads:
        rounds = comparison.candidate_rounds_at(load)
        latencies = [point.latency_ms[percentile].value for point in rounds]
        words = f"{percentile} of {format_number(min(latencies))} to {format_ms(max(latencies))} at {load}"
        tests = [test for test in limits_together(rounds) if test.verdict_among(among) is Verdict.OPEN]
        few = next((test for test in tests if test.independent < test.fewest(among)), None)
        if few:
            words += f", worth {few.independent:.0f} independent requests (at least {few.fewest(among)} needed)"
        elif not tests:
            words += ", but launches differ too much"
        parts.append(words)
    return "; ".join(parts)


def _in_words(comparison: Comparison) -> str:
    gain, pairs = comparison.gain, comparison.pairs
    if gain is None:
        return f"{pairs} pairs of launches"
    objective = comparison.objective
    what = f"the {objective.words}" if objective.maximizes else f"as quick by {objective.words}"
    return f"{gain.value:.2f} x {what} ({gain.low:.2f} to {gain.high:.2f}) in {pairs} pairs of launches"


def is_settled(comparison: Comparison, *, min_gain: float) -> bool:
    """Whether more pairs are useless, as the gate acts or the upper bound of the gain is below `min_gain`."""
    gain = comparison.gain
    if comparison.failure or comparison.verdict is Verdict.BREAKS:
        return True
    if gain is None or comparison.pairs < LEAST_PAIRS:
        return False
    return gain.high < 1 + min_gain or decide(comparison, min_gain=min_gain).act
