"""One load level: reads samples until they are precise enough, and makes an operating point of them.

A measurement does not end during a stall or just after one, since the stall would then be missing from it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tuner.core.loads import Concurrency, Load, Ramp, Replay
from tuner.core.objectives import THROUGHPUT, inverse
from tuner.core.record import Interval
from tuner.load.protocols import LoadEngine, Samples
from tuner.measure.failing import raise_if_failing, raise_if_unanswered, silence_s
from tuner.measure.meter import Meter
from tuner.measure.operating_point import operating_point
from tuner.measure.points import OperatingPoint
from tuner.measure.quality_checks import warnings_about
from tuner.measure.rules import LevelRules
from tuner.measure.server_statistics import Read, Reads, ReadStatistics
from tuner.measure.timeline import timeline
from tuner.stats.latencies import percentiles, slo_tests
from tuner.stats.rates import throughput
from tuner.stats.slo_verdict import Verdict, together
from tuner.stats.window import Window, ends_by_itself, steady_window

# Each look comes at this multiple of the time of the previous one, which limits the number of looks.
_LOOK_GROWTH = 1.4
# The longest time between checks of the server's health, in seconds.
_PULSE_S = 0.5
_SHORTEST_PAUSE_S = 0.001
# Stopping at the first narrow interval selects intervals that are narrow by chance, mostly from short windows. So the
# interval of a window below 3 s must be narrower by (length / 3 s) ** 0.12. Calibrated with benchmarks/precision.py.
_LONG_S, _SOONER = 3.0, 0.12
# The share of an offered rate below which the server does not keep up, however long it is measured.
_HOPELESS = 0.8
# A stall is a silence of more than twice the longest request plus this, in seconds.
_STILL_S = 0.05
# The stall explains the latest answer's delay if that is between these multiples of the longest stall.
_CAUGHT_UP, _BECAUSE = 0.25, 1.1


def measure_level(
    engine: LoadEngine,
    load: Load,
    *,
    statistics: ReadStatistics | None,
    health: Callable[[], None],
    rules: LevelRules,
    batch_size: int = 1,
    in_steps: bool = False,
    behind: bool = False,
    meter: Meter | None = None,
    deadline: Deadline | None = None,
) -> OperatingPoint:
    """Offer one load until its result is precise enough.

    Args:
        engine: The load engine.
        load: The load to offer.
        statistics: Reads the server's statistics, at the first and the last look; None: not available.
        health: Raises `ServerDiedError` if the server is gone; called at least twice a second.
        rules: When the level has been measured well enough.
        batch_size: Inferences in each request.
        in_steps: See `warnings_about`.
        behind: See `warnings_about`.
        meter: Measures resources of the server, its GPUs and this machine; None: not measured.
        deadline: The level ends at the first look after this, at most 0.5 s later; None: no deadline.

    Raises:
        LevelCutError: at the deadline the level had too few answers, or answers had stopped.
        ServerDiedError: raised by `health`.
        ServerHungError: no request was answered within the deadline of a request.
        ServerError: more than half of the requests failed, or all of the latest ones; with the most frequent error.
        TuningError: the load has no request.
    """
    level = _Level(load, statistics, health, rules, batch_size, deadline=deadline)
    samples = level.offer(engine)
    window, reads = steady_window(samples, load), level.reads
    return operating_point(
        samples,
        window,
        load,
        requests_per_s=throughput(window),
        batch_size=batch_size,
        server=reads.breakdown if reads else None,
        meter=meter,
        slo=rules.slo,
        percentile=rules.percentile,
        noticed=warnings_about(samples, window, load, reads, in_steps=in_steps, behind=behind),
    )


def measure_ramp(
    engine: LoadEngine,
    ramp: Ramp,
    *,
    health: Callable[[], None],
    rules: LevelRules,
    slices: int = 10,
    batch_size: int = 1,
    meter: Meter | None = None,
) -> tuple[OperatingPoint, ...]:
    """Offer a ramp, and return an operating point for each slice of its time; see `timeline`.

    Args:
        engine: As for `measure_level`.
        ramp: The ramp to offer.
        health: As for `measure_level`.
        rules: As for `measure_level`.
        slices: Number of slices.
        batch_size: Inferences in each request.
        meter: As for `measure_level`.

    Raises:
        TritontuneError: as `measure_level` does.
    """
    samples = _Level(ramp, None, health, rules, batch_size).offer(engine)
    return timeline(samples, ramp, slices=slices, batch_size=batch_size, meter=meter)


@dataclass(frozen=True)
class Deadline:
    """The time at which a level must end, even if it is not precise enough.

    Attributes:
        at: The time on the clock `now`, in seconds.
        now: The clock, in seconds.
    """

    at: float
    now: Callable[[], float] = time.monotonic

    @property
    def has_passed(self) -> bool:
        """Whether the deadline has passed."""
        return self.now() >= self.at


class LevelCutError(Exception):
    """A level ended at its deadline, with too few answers for an operating point."""


class _Level:
    """The looks at one level, with the server's statistics at the first and the last one."""

    def __init__(
        self,
        load: Load,
        statistics: ReadStatistics | None,
        health: Callable[[], None],
        rules: LevelRules,
        batch_size: int,
        *,
        deadline: Deadline | None = None,
    ) -> None:
        self._load = load
        self._statistics = statistics
        self._health = health
        self._rules = rules
        self._earliest_s = rules.min_s
        self._needed = rules.min_requests
        if isinstance(load, Concurrency):
            self._needed = max(self._needed, rules.min_rounds * load.requests)
        elif isinstance(load, Replay) and load.period_ns is not None:
            self._earliest_s = max(self._earliest_s, load.period_ns / 1e9)
        # One look earlier than the first one that may end the level, as an interval must be narrow at two looks.
        self._next_look_s = self._earliest_s / _LOOK_GROWTH
        self._evidence = Evidence(load, rules, batch_size=batch_size)
        self._first: Read | None = None
        self._last: Read | None = None
        self._deadline = deadline
        self._cut = False

    def offer(self, engine: LoadEngine) -> Samples:
        """Offer the load, and return its samples, at least one of them successful."""
        samples = engine.offer(self._load, self._watch, first_look_s=self._rules.first_look_s)
        if self._cut and (np.count_nonzero(samples.ok) < self._needed or is_still(samples, self._load)):
            raise LevelCutError
        raise_if_failing(samples, self._load, timeout_s=self._rules.request_timeout_s)
        raise_if_unanswered(samples, self._load)
        return samples

    @property
    def reads(self) -> Reads | None:
        """The server's statistics at the first and the last look."""
        return Reads(self._first, self._last) if self._first and self._last else None

    def _watch(self, samples: Samples) -> float | None:
        """See `tuner.load.protocols.Watch`."""
        self._health()
        if self._deadline and self._deadline.has_passed:
            self._cut = True
            self._read_again()
            return None
        if self._statistics and self._first is None:
            self._first = Read.now(self._statistics)
        elif ends_by_itself(self._load):
            # Any look may be the last.
            self._read_again()
            return _PULSE_S
        elif samples.wall_s >= self._next_look_s:
            raise_if_failing(samples, self._load, timeout_s=self._rules.request_timeout_s)
            latest_s = self._latest_s(samples)
            if self._is_enough(samples, latest_s):
                self._read_again()
                return None
            later_s = samples.wall_s * _LOOK_GROWTH
            if samples.wall_s < self._earliest_s:
                later_s = self._earliest_s
            self._next_look_s = min(later_s, latest_s) if samples.wall_s < latest_s else samples.wall_s + _PULSE_S
        return min(_PULSE_S, max(_SHORTEST_PAUSE_S, self._next_look_s - samples.wall_s))

    def _read_again(self) -> None:
        self._last = Read.now(self._statistics) if self._statistics else None

    def _latest_s(self, samples: Samples) -> float:
        """The latest time at which the level ends, in seconds; later for a slow model."""
        rules = self._rules
        answered = int(np.count_nonzero(samples.ok))
        if not answered:
            return rules.slow_max_s
        needed = rules.slow_requests or self._needed
        slow_s = min(rules.slow_max_s, samples.wall_s * needed / answered)
        return max(rules.max_s, self._earliest_s, slow_s)

    def _is_enough(self, samples: Samples, latest_s: float) -> bool:
        rules = self._rules
        answered = int(np.count_nonzero(samples.ok))
        if not answered or is_still(samples, self._load):
            return False
        if is_catching_up(samples, self._load) and samples.wall_s < rules.slow_max_s:
            return False
        if samples.wall_s >= latest_s:
            return True
        if answered < self._needed:
            return False
        suffices = self._evidence.suffices(steady_window(samples, self._load))
        return suffices and samples.wall_s >= self._earliest_s


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

        A rate that must be held also ends it if the server is far from keeping up; see `is_hopeless`.

        Args:
            window: The part of the samples that counts at this look; not empty.
        """
        rules = self._rules
        latency_ms, requests_per_s = percentiles(window), throughput(window)
        verdict = together(test.verdict for test in slo_tests(window, rules.slo))
        if verdict is Verdict.BREAKS:
            return True
        if self._is_beaten(requests_per_s, latency_ms[rules.percentile]):
            return True
        if rules.objective.rate is not None and is_hopeless(requests_per_s, rules.objective.rate):
            return True
        undecided = verdict is Verdict.OPEN and any(
            latency_ms[name].low <= limit_ms <= latency_ms[name].high for _, name, limit_ms in rules.slo.limits
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

    def _is_beaten(self, requests_per_s: Interval, latency_ms: Interval) -> bool:
        """Whether a rival beats it; by objectives that need a GPU, none does before the level has ended."""
        objective, rivals = self._rules.objective, self._rules.rivals
        if not objective.maximizes:
            return rivals.beat(inverse(latency_ms), latency_ms)
        return objective == THROUGHPUT and rivals.beat(requests_per_s.times(self._batch_size), latency_ms)


def is_hopeless(requests_per_s: Interval, offered_per_s: float) -> bool:
    """Whether the rate of answers (the upper end of its 95 % interval) is below 80 % of the offered one."""
    return requests_per_s.high < _HOPELESS * offered_per_s


def is_still(samples: Samples, load: Load) -> bool:
    """Whether answers have stopped coming.

    Args:
        samples: All samples of the load so far, with at least one success.
        load: The load that is offered.
    """
    longest_s = float((samples.done_ns - samples.sent_ns)[samples.ok].max()) / 1e9
    return silence_s(samples) > 2 * (longest_s + _longest_pause_s(samples, load)) + _STILL_S


def is_catching_up(samples: Samples, load: Load) -> bool:
    """Whether the server still answers requests that were due during a past stall; false in a closed loop.

    That is the case if the latest answer took between 0.25 and 1.1 times as long as the longest stall. The answers of a
    server that cannot keep up take longer.

    Args:
        samples: All samples of the load so far, with at least one success.
        load: The load that is offered.
    """
    if isinstance(load, Concurrency):
        return False
    done_ns = samples.done_ns[samples.ok]
    latency_s = (done_ns - samples.sent_ns[samples.ok]) / 1e9
    stop_s = float(np.diff(done_ns, prepend=samples.sent_ns.min()).max()) / 1e9
    if stop_s <= 2 * (float(np.median(latency_s)) + _longest_pause_s(samples, load)) + _STILL_S:
        return False
    return _CAUGHT_UP * stop_s < float(latency_s[-1]) <= _BECAUSE * stop_s


def _longest_pause_s(samples: Samples, load: Load) -> float:
    """The longest time in seconds in which no request was due; 0 in a closed loop."""
    if isinstance(load, Concurrency):
        return 0.0
    return float(np.diff(np.sort(samples.sent_ns), prepend=samples.sent_ns.min()).max()) / 1e9
