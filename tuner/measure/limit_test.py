"""Whether a latency limit holds, by a binomial test on how many requests were over it.

The rule of MLPerf LoadGen's early stopping: of n requests, k over the limit, the percentile p is within it when so few
would be over by chance in 1 % of cases at most, were it just at the limit: P(Binomial(n, 1 - p) <= k) <= 0.01. So p99
holds from 459 requests on with none over, from 662 with one. The mirror rule says early that it does not hold.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from pydantic import Field
from scipy import special

from tuner.measure.record import Record
from tuner.slo import Percentile, share_of

_CHANCE = 0.01


class Verdict(Enum):
    """What a test says of a limit; `OPEN` is too early to say."""

    HOLDS = "holds"
    BREAKS = "breaks"
    OPEN = "open"


class LimitTest(Record):
    """How many requests were over a limit.

    Attributes:
        percentile: That must lie within the limit.
        limit_ms: The limit.
        requests: Requests that count.
        over: Those of them that took longer.
        design_effect: So many requests tell as much as one independent request would: batch-mates end together, and
            who is behind a slow request is slow, too.
    """

    percentile: Percentile
    limit_ms: float
    requests: int = Field(ge=0)
    over: int = Field(ge=0)
    design_effect: float = Field(ge=1)

    @property
    def verdict(self) -> Verdict:
        """By the binomial test, of as many requests as are independent."""
        return judge(self.requests / self.design_effect, self.over / self.design_effect, 1 - share_of(self.percentile))


def judge(requests: float, over: float, allowed: float) -> Verdict:
    """Whether a share of requests over a limit is within the allowed one.

    Args:
        requests: Independent ones; need not be whole.
        over: Of those.
        allowed: The share that may be over: 0.01 for p99.
    """
    if requests <= 0:
        return Verdict.OPEN
    # P(Binomial(n, q) <= k) is the regularised incomplete beta function I of 1 - q with n - k and k + 1.
    if over < requests and special.betainc(requests - over, over + 1, 1 - allowed) <= _CHANCE:
        return Verdict.HOLDS
    if over > 0 and special.betainc(over, requests - over + 1, allowed) <= _CHANCE:
        return Verdict.BREAKS
    return Verdict.OPEN


def together(verdicts: Iterable[Verdict]) -> Verdict:
    """Of several limits, all of which must hold."""
    found = set(verdicts)
    return Verdict.BREAKS if Verdict.BREAKS in found else Verdict.OPEN if Verdict.OPEN in found else Verdict.HOLDS
