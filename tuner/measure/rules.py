"""Rules for the end of a load level's measurement."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tuner.core.objectives import THROUGHPUT, Objective
from tuner.core.precision import DEFAULT, Precision
from tuner.core.slo import NO_LIMIT, SLO, Percentile
from tuner.measure.rivals import NOBODY, Rivals

# The longest measurement, as a multiple of the default one.
_LONGEST = 36.0


@dataclass(frozen=True)
class LevelRules:
    """The rules by which the measurement of a load level ends.

    A level ends when throughput and the latency percentile are both precise enough, or after `max_s`. A slow model gets
    more time, up to `slow_max_s`. A model is slow if it has fewer than `min_requests` answers by then, or, in a closed
    loop, fewer than `min_rounds` rounds. If `slow_requests` is given, this number of answers decides instead. In an
    open loop only the latency counts. A load that ends by itself is measured to its end, and a repeating recording at
    least once as a whole.

    Attributes:
        throughput_precision: Required relative half width of throughput's 95 % interval; closed loops only.
        latency_precision: Required relative half width of the interval of latency at `percentile`.
        first_look_s: Seconds until the first look, which never ends the level.
        min_s: Shortest measurement, in seconds.
        max_s: Longest measurement, in seconds, except for a slow model.
        slow_max_s: Longest measurement of a slow model, in seconds.
        min_requests: Successful requests that a level needs.
        narrow_looks: Consecutive looks that must be precise enough, as a single one may be so by chance.
        slow_requests: Number of answers that ends a slow model's extra time; None: `min_requests` and `min_rounds`
            decide.
        min_rounds: Number of rounds, each as many answers as requests under way, that a level needs; closed loops only.
        request_timeout_s: Deadline of a request; a server that is silent for as long hangs.
        slo: Limits to test. A level ends when it violates a limit (99 % confidence), and continues while it is
            undecided.
        rivals: Results of other candidates. A level that they clearly beat ends.
        objective: The objective.
    """

    throughput_precision: float = DEFAULT.throughput
    latency_precision: float = DEFAULT.latency
    first_look_s: float = 0.15
    min_s: float = 0.4
    max_s: float = 10.0
    slow_max_s: float = 30.0
    min_requests: int = 20
    slow_requests: int | None = None
    min_rounds: int = 4
    narrow_looks: int = 2
    request_timeout_s: float = 30.0
    slo: SLO = NO_LIMIT
    rivals: Rivals = NOBODY
    objective: Objective = THROUGHPUT

    @property
    def percentile(self) -> Percentile:
        """The latency percentile that must be precise: the minimized one, or the highest that the SLO limits."""
        return self.objective.percentile_for(self.slo)

    def to(self, precision: Precision) -> LevelRules:
        """The rules for another precision than the default; half the width takes four times as long.

        With a lower precision, time limits stay, but levels end earlier.
        """
        throughput, latency = precision.throughput / DEFAULT.throughput, precision.latency / DEFAULT.latency
        longer = min(_LONGEST, max(1.0, min(throughput, latency) ** -2))
        return replace(
            self,
            throughput_precision=throughput * self.throughput_precision,
            latency_precision=latency * self.latency_precision,
            max_s=longer * self.max_s,
            slow_max_s=max(self.slow_max_s, longer * self.max_s),
        )
