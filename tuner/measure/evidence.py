"""Decides, look by look, whether a load level has been measured well enough."""

from __future__ import annotations

from tuner.core.loads import Concurrency, Load
from tuner.measure.rules import LevelRules
from tuner.stats.latencies import limit_tests, percentiles
from tuner.stats.limit_test import Verdict, together
from tuner.stats.rates import throughput
from tuner.stats.window import Window

# Stopping at the first narrow interval selects those that are narrow by chance, mostly from short windows. So the
# interval of a window below 3 s must be narrower by (length / 3 s) ** 0.12. Calibrated with benchmarks/precision.py.
_LONG_S, _SOONER = 3.0, 0.12


class Evidence:
    """The looks at one load level so far.

    Args:
        load: The load that is offered.
        rules: The required precision, the SLO, and the rivals.
        batch_size: Inferences in each request.
    """

    def __init__(self, load: Load, rules: LevelRules, *, batch_size: int = 1) -> None:
        self._load = load
        self._rules = rules
        self._batch_size = batch_size
        self._narrow = 0

    def suffices(self, window: Window) -> bool:
        """Whether the level is precise enough, violates the SLO (99 % confidence), or a rival beats it (95 % interval).

        Args:
            window: The part of the samples that counts at this look; not empty.
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
        # A short window is more likely to be narrow by chance.
        share = min(1.0, window.length_s / _LONG_S) ** _SOONER
        precise = latency_ms[rules.percentile].relative_half_width <= share * rules.latency_precision and (
            # The throughput of an open loop is the offered rate.
            not isinstance(self._load, Concurrency)
            or requests_per_s.relative_half_width <= share * rules.throughput_precision
        )
        self._narrow = self._narrow + 1 if precise and not undecided else 0
        return self._narrow >= rules.narrow_looks
