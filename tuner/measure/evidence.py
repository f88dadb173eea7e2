"""Whether a load level has told enough, look after look."""

from __future__ import annotations

from tuner.core.loads import Concurrency, Load
from tuner.measure.rules import LevelRules
from tuner.stats.latencies import limit_tests, percentiles
from tuner.stats.limit_test import Verdict, together
from tuner.stats.rates import throughput
from tuner.stats.window import Window

# Whoever looks often and ends when an interval is narrow picks those that are narrow by chance, short ones above all: a
# machine that is not alone wanders for tenths of a second, and in a few of those may seem to stand still. So much
# narrower must an interval be that is from a shorter window: a power of its length, calibrated by
# benchmarks/precision.py.
_LONG_S, _SOONER = 3.0, 0.12


class Evidence:
    """What the looks at one level have said so far.

    Args:
        load: What is offered.
        rules: What is asked for.
        batch_size: Inferences in each request.
    """

    def __init__(self, load: Load, rules: LevelRules, *, batch_size: int = 1) -> None:
        self._load = load
        self._rules = rules
        self._batch_size = batch_size
        self._narrow = 0

    def suffices(self, window: Window) -> bool:
        """Whether what counts is known precisely enough, surely breaks a limit, or is surely beaten.

        Args:
            window: What counts at this look; not empty.
        """
        rules = self._rules
        latency_ms, requests_per_s = percentiles(window), throughput(window)
        verdict = together(test.verdict for test in limit_tests(window, rules.slo))
        if verdict is Verdict.BREAKS:
            return True
        if rules.rivals.beat(requests_per_s.times(self._batch_size), latency_ms[rules.percentile]):
            return True
        undecided = verdict is Verdict.OPEN and any(
            latency_ms[name].low <= limit_ms <= latency_ms[name].high for name, limit_ms in rules.slo.limits
        )
        # The less was seen, the likelier it is narrow by chance.
        share = min(1.0, window.length_s / _LONG_S) ** _SOONER
        precise = latency_ms[rules.percentile].relative_half_width <= share * rules.latency_precision and (
            # The throughput of an open loop is known before.
            not isinstance(self._load, Concurrency)
            or requests_per_s.relative_half_width <= share * rules.throughput_precision
        )
        self._narrow = self._narrow + 1 if precise and not undecided else 0
        return self._narrow >= rules.narrow_looks
