"""Tests whether a latency limit holds: a sequential binomial test of the number of requests over it.

The question is that of MLPerf LoadGen's early stopping: is the share of requests over the limit below the allowed
share? A measurement that continues until the test holds looks at it many times, so the test must be valid at every
look. It uses the likelihood ratio of all smaller shares, mixed by a beta distribution, to the allowed share. If the
limit does not hold, this ratio is a supermartingale. It then exceeds 100 at any look in at most 1 % of cases (Ville
1939; Robbins 1970, "Statistical methods related to the law of the iterated logarithm"). For example, p99 holds after
556 independent requests with none over the limit. The mirrored test shows that a limit does not hold.

Requests of several launches are not independent either, as the machine's speed varies between launches. So launches are
clusters: the variance between them reduces the weight of their requests (Kish 1965). With few launches, the weight is
reduced further (Korn and Graubard 1998).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from enum import Enum

from pydantic import Field
from scipy import special

from tuner.core.record import Record
from tuner.core.slo import LATENCY, Limit, Percentile, share_of
from tuner.stats.blocks import student

CHANCE = 0.01
"""Error probability of a test, over all of its looks."""
CONFIDENCE = f"{100 * (1 - CHANCE):g} % confidence"
"""The confidence of a test's verdict, for messages."""

# Upper bound of `fewest`, as a multiple of the requests that a test with one look needs.
_MOST_FEWEST = 4


class Verdict(Enum):
    """The result of a test of a limit; `OPEN`: too few requests to decide."""

    HOLDS = "holds"
    BREAKS = "breaks"
    OPEN = "open"


class SLOTest(Record):
    """The number of requests over a limit, and the test of that limit.

    Attributes:
        metric: The name of the limited metric.
        percentile: The percentile that must be within the limit.
        limit_ms: The limit, in ms.
        requests: Requests in the window.
        over: Requests that took longer than the limit.
        design_effect: Number of requests with as much information as one independent request (Kish 1965). Requests are
            correlated: those of a batch end together, and those behind a slow request are slow, too.
    """

    metric: str = LATENCY.name
    percentile: Percentile
    limit_ms: float
    requests: int = Field(ge=0)
    over: int = Field(ge=0)
    design_effect: float = Field(ge=1)

    @property
    def limit(self) -> Limit:
        """The tested limit, as in `SLO.limits`."""
        return Limit(self.metric, self.percentile, self.limit_ms)

    @property
    def verdict(self) -> Verdict:
        """The verdict of this test alone."""
        return self.verdict_among(1)

    def verdict_among(self, tests: int) -> Verdict:
        """The verdict of the binomial test, for the number of independent requests.

        Args:
            tests: Number of tests, this one included, of which any may hold; see `judge`.
        """
        return judge(self.independent, self.over / self.design_effect, self.allowed, tests)

    @property
    def allowed(self) -> float:
        """The share of requests that may be over the limit."""
        return 1 - share_of(self.percentile)

    @property
    def independent(self) -> float:
        """Number of independent requests with the same information."""
        return self.requests / self.design_effect

    def fewest(self, tests: int = 1) -> int:
        """The fewest independent requests that show that the limit holds, if none is over it."""
        most = math.ceil(_MOST_FEWEST * math.log(tests / CHANCE) / self.allowed)
        return bisect_left(range(most), 1, key=lambda count: judge(count, 0, self.allowed, tests) is Verdict.HOLDS)

    @classmethod
    def added(cls, tests: Sequence[SLOTest]) -> SLOTest:
        """Pool several measurements of one launch, which tested the same limit."""
        requests, over = sum(test.requests for test in tests), sum(test.over for test in tests)
        effect = sum(test.design_effect * test.requests for test in tests) / requests if requests else 1.0
        return tests[0].model_copy(update={"requests": requests, "over": over, "design_effect": effect})

    @classmethod
    def pooled(cls, launches: Sequence[SLOTest]) -> SLOTest:
        """Pool several launches, which tested the same limit, as clusters."""
        added = cls.added(launches)
        effect = max(added.design_effect, _between(launches, added.requests, added.over))
        return added.model_copy(update={"design_effect": effect})


def _between(launches: Sequence[SLOTest], requests: int, over: int) -> float:
    """The design effect of launches as clusters: the variance between them over that of independent requests."""
    count = len(launches)
    if count < 2 or not 0 < over < requests:
        return 1.0
    share = over / requests
    squares = sum((test.over - share * test.requests) ** 2 for test in launches)
    variance = squares * count / (count - 1) / (requests * share * (1 - share))
    few, many = student(count), student(requests)
    return variance * (few / many) ** 2


def judge(requests: float, over: float, allowed: float, tests: int = 1) -> Verdict:
    """Whether a share of requests over a limit is within the allowed one.

    It is valid at every look, even after each request.

    Args:
        requests: Number of independent requests; need not be whole.
        over: Number of them over the limit.
        allowed: The share that may be over the limit: 0.01 for p99.
        tests: Number of tests that share the error probability (Bonferroni).
    """
    if requests <= 0:
        return Verdict.OPEN
    if _log_evidence(requests, over, allowed) < math.log(tests / CHANCE):
        return Verdict.OPEN
    return Verdict.HOLDS if over < allowed * requests else Verdict.BREAKS


def _log_evidence(requests: float, over: float, allowed: float) -> float:
    """The logarithm of the likelihood ratio of other shares to the allowed share.

    The other shares are those on the side of the observed share, mixed by Jeffreys' prior, a beta distribution.

    Args:
        requests: Number of independent requests.
        over: Number of them over the limit.
        allowed: The share that may be over the limit.
    """
    within = requests - over
    mass = special.betainc if over < allowed * requests else special.betaincc
    after = special.betaln(0.5 + over, 0.5 + within) + math.log(mass(0.5 + over, 0.5 + within, allowed))
    before = math.log(math.pi * mass(0.5, 0.5, allowed))
    return float(after - before - over * math.log(allowed) - within * math.log1p(-allowed))


def together(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on several limits, all of which must hold."""
    kinds = set(verdicts)
    return Verdict.BREAKS if Verdict.BREAKS in kinds else Verdict.OPEN if Verdict.OPEN in kinds else Verdict.HOLDS
