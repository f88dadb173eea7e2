"""One load level: watch the samples come in, end as soon as they tell enough, and make an operating point of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tuner.core.loads import Concurrency, Load, Ramp, Replay
from tuner.load.protocols import LoadEngine, Samples
from tuner.measure.evidence import Evidence
from tuner.measure.failing import raise_if_failing, raise_if_unanswered
from tuner.measure.gates import doubts_about
from tuner.measure.meter import Meter
from tuner.measure.operating_point import operating_point
from tuner.measure.points import OperatingPoint
from tuner.measure.rules import LevelRules
from tuner.measure.server_statistics import Read, Reads, ReadStatistics
from tuner.measure.stops import is_catching_up, is_still
from tuner.measure.timeline import timeline
from tuner.stats.rates import throughput
from tuner.stats.window import ends_by_itself, steady_window

# Each look comes so much later than the one before: few looks, each upon news.
_LOOK_GROWTH = 1.4
# The server's health is looked at no less often.
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
    """Offer one load until it is known well enough what comes of it.

    Args:
        engine: What offers it.
        load: How much.
        statistics: Asks the server for its own statistics, at the first and the last look; None: it has none.
        health: Raises `ServerDiedError` when the server is gone; called at every look, twice a second or more.
        rules: When it is enough.
        batch_size: Inferences in each request.
        in_steps: See `doubts_about`.
        behind: See there, too.
        meter: Tells what the server and its GPUs take; None: nobody does.
        deadline: When to end it at the next look, within half a second; None: when it is enough.

    Raises:
        LevelCutError: it had too few answers at its deadline, or none any more.
        ServerDiedError: from `health`.
        ServerHungError: no request was answered within the deadline.
        ServerError: more than half of the requests failed, or all since some moment; with the most frequent error.
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
    doubts = doubts_about(samples, window, load, reads, in_steps=in_steps, behind=behind)
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
    """Offer a ramp, and say of each slice of it what came of the rate that it had; see `timeline`.

    Args:
        engine: As for `measure_level`.
        ramp: What to offer.
        health: As for `measure_level`.
        rules: As for `measure_level`.
        slices: How many.
        batch_size: Inferences in each request.
        meter: As for `measure_level`.

    Raises:
        TritontuneError: as `measure_level` does.
    """
    samples = _Level(ramp, None, health, rules, batch_size).offer(engine)
    return timeline(samples, ramp, slices=slices, batch_size=batch_size, meter=meter)


@dataclass(frozen=True)
class Deadline:
    """By when a level has to be over, whatever it has told.

    Attributes:
        at: By `now`.
        now: The clock, in seconds.
    """

    at: float
    now: Callable[[], float] = time.monotonic

    @property
    def has_passed(self) -> bool:
        """Whether it is over."""
        return self.now() >= self.at


class LevelCutError(Exception):
    """A level was ended at its deadline before it told enough to be a point."""


class _Level:
    """The looks at one level, and what the server said at the first and the last of them."""

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
        # One look before the first that may be the last: what is narrow must have been so before.
        self._next_look_s = self._earliest_s / _LOOK_GROWTH
        self._evidence = Evidence(load, rules, batch_size=batch_size)
        self._first: Read | None = None
        self._last: Read | None = None
        self._deadline = deadline
        self._cut = False

    def offer(self, engine: LoadEngine) -> Samples:
        """Offer the load, and return samples that numbers can be made of."""
        samples = engine.offer(self._load, self._watch, first_look_s=self._rules.first_look_s)
        if self._cut and (np.count_nonzero(samples.ok) < self._needed or is_still(samples, self._load)):
            raise LevelCutError
        raise_if_failing(samples, self._load, timeout_s=self._rules.request_timeout_s)
        raise_if_unanswered(samples, self._load)
        return samples

    @property
    def reads(self) -> Reads | None:
        """What the server said at the first and the last look."""
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
        """When to end at the latest, by how slow the model has turned out to be."""
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
