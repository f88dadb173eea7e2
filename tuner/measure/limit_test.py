"""Whether a latency limit holds, by a binomial test on how many requests were over it.

The rule of MLPerf LoadGen's early stopping: of n requests, k over the limit, the percentile p is within it when so few
would be over by chance in 1 % of cases at most, were it just at the limit: P(Binomial(n, 1 - p) <= k) <= 0.01. So p99
holds from 459 requests on with none over, from 662 with one. The mirror rule says early that it does not hold.

Requests of several launches are no more independent than those of one: a machine is quicker in one minute than in the
next. So launches are taken as clusters, and what differs between them makes their requests count for less (Kish 1965),
all the more so as few launches tell of it (Korn and Graubard 1998).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from enum import Enum

from pydantic import Field
from scipy import special

from tuner.measure.blocks import student
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
    def limit(self) -> tuple[Percentile, float]:
        """What is tested, as `SLO.limits` has it."""
        return self.percentile, self.limit_ms

    @property
    def verdict(self) -> Verdict:
        """By the binomial test, of as many requests as are independent."""
        return judge(self.independent, self.over / self.design_effect, self.allowed)

    @property
    def allowed(self) -> float:
        """The share of requests that may be over."""
        return 1 - share_of(self.percentile)

    @property
    def independent(self) -> float:
        """As many independent requests would tell as much."""
        return self.requests / self.design_effect

    @property
    def fewest(self) -> int:
        """From so many independent requests on, none of them over, the limit is held."""
        return math.ceil(math.log(_CHANCE) / math.log(1 - self.allowed))

    @classmethod
    def added(cls, tests: Sequence[LimitTest]) -> LimitTest:
        """What several measurements of one launch say together of the limit that all of them were tested for."""
        requests, over = sum(test.requests for test in tests), sum(test.over for test in tests)
        effect = sum(test.design_effect * test.requests for test in tests) / requests if requests else 1.0
        return tests[0].model_copy(update={"requests": requests, "over": over, "design_effect": effect})

    @classmethod
    def pooled(cls, launches: Sequence[LimitTest]) -> LimitTest:
        """The same of several launches."""
        added = cls.added(launches)
        effect = max(added.design_effect, _between(launches, added.requests, added.over))
        return added.model_copy(update={"design_effect": effect})


def _between(launches: Sequence[LimitTest], requests: int, over: int) -> float:
    """The design effect of launches as clusters: the variance between them over that of independent requests."""
    count = len(launches)
    if count < 2 or not 0 < over < requests:
        return 1.0
    share = over / requests
    squares = sum((test.over - share * test.requests) ** 2 for test in launches)
    variance = squares * count / (count - 1) / (requests * share * (1 - share))
    few, many = student(count), student(requests)
    return variance * (few / many) ** 2


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
