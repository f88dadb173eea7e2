"""One load level: reads samples until they are precise enough, and makes an operating point of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tuner.core.loads import Concurrency, Load, Ramp, Replay
from tuner.load.protocols import LoadEngine, Samples
from tuner.measure.evidence import Evidence
from tuner.measure.failing import raise_if_failing, raise_if_unanswered
from tuner.measure.meter import Meter
from tuner.measure.operating_point import operating_point
from tuner.measure.points import OperatingPoint
from tuner.measure.quality_checks import warnings_about
from tuner.measure.rules import LevelRules
from tuner.measure.server_statistics import Read, Reads, ReadStatistics
from tuner.measure.stops import is_catching_up, is_still
from tuner.measure.timeline import timeline
from tuner.stats.rates import throughput
from tuner.stats.window import ends_by_itself, steady_window

# Each look comes at this multiple of the time of the previous one, which limits the number of looks.
_LOOK_GROWTH = 1.4
# The longest time between checks of the server's health, in seconds.
_PULSE_S = 0.5
_SHORTEST_PAUSE_S = 0.001


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
        LevelCutError: at its deadline it had too few answers, or answers had stopped.
        ServerDiedError: raised by `health`.
        ServerHungError: no request was answered within the deadline of a request.
        ServerError: more than half of the requests failed, or all of the latest ones; with the most frequent error.
        TuningError: the load has no request.
    """
    level = _Level(load, statistics, health, rules, batch_size, deadline=deadline)
    samples = level.offer(engine)
    window, reads = steady_window(samples, load), level.reads
    point = operating_point(
        samples,
        window,
        load,
        requests_per_s=throughput(window),
        batch_size=batch_size,
        server=reads.breakdown if reads else None,
        meter=meter,
        slo=rules.slo,
    )
    doubts = warnings_about(samples, window, load, reads, in_steps=in_steps, behind=behind)
    return point.model_copy(update={"doubts": doubts + point.doubts})


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
    """When a level must end, precise enough or not.

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
        # One look before the first that may end the level, as an interval must be narrow at two looks.
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
        """The latest end in seconds, which is later for a slow model."""
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
