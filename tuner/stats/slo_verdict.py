"""Whether a latency limit holds, by a sequential binomial test on how many requests were over it.

The question is that of MLPerf LoadGen's early stopping: is the share of requests over the limit less than the allowed
one? But whoever measures until a test says yes asks it often. So the test is always valid: the likelihood ratio of all
smaller shares, mixed by a beta distribution, to the allowed one is a supermartingale where the limit does not hold, and
exceeds 100 in 1 % of cases at most, at whatever look (Ville 1939; Robbins 1970, "Statistical methods related to the law
of the iterated logarithm"). So p99 holds from 556 independent requests on with none over. The mirror rule says early
that it does not hold.

Requests of several launches are no more independent than those of one: a machine is quicker in one minute than in the
next. So launches are taken as clusters, and what differs between them makes their requests count for less (Kish 1965),
all the more so as few launches tell of it (Korn and Graubard 1998).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from enum import Enum

from pydantic import Field
from scipy import special

from tuner.core.record import Record
from tuner.core.slo import Percentile, share_of
from tuner.stats.blocks import student

CHANCE = 0.01
"""How often a test may err, at all of its looks together."""
CONFIDENCE = f"{100 * (1 - CHANCE):g} % confidence"
"""The confidence of a test's verdict, for messages."""

# A limit is held long before so many times as many requests as a test with one look needs.
_MOST_FEWEST = 4


class Verdict(Enum):
    """What a test says of a limit; `OPEN` is too early to say."""

    HOLDS = "holds"
    BREAKS = "breaks"
    OPEN = "open"


class SLOTest(Record):
    """How many requests were over a limit.

    Attributes:
        percentile: The percentile that must be within the limit.
        limit_ms: The limit, in ms.
        requests: Requests in the window.
        over: Requests that took longer than the limit.
        design_effect: Number of requests with as much information as one independent request (Kish 1965): requests of a
            batch end together, and those behind a slow request are slow too.
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
        """By this test alone."""
        return self.verdict_among(1)

    def verdict_among(self, tests: int) -> Verdict:
        """By the binomial test, of as many requests as are independent.

        Args:
            tests: Of how many, each tried until one of them holds, this is one; see `judge`.
        """
        return judge(self.independent, self.over / self.design_effect, self.allowed, tests)

    @property
    def allowed(self) -> float:
        """The share of requests that may be over."""
        return 1 - share_of(self.percentile)

    @property
    def independent(self) -> float:
        """As many independent requests would tell as much."""
        return self.requests / self.design_effect

    def fewest(self, tests: int = 1) -> int:
        """From so many independent requests on, none of them over, the limit is held."""
        most = math.ceil(_MOST_FEWEST * math.log(tests / CHANCE) / self.allowed)
        return bisect_left(range(most), 1, key=lambda count: judge(count, 0, self.allowed, tests) is Verdict.HOLDS)

    @classmethod
    def added(cls, tests: Sequence[SLOTest]) -> SLOTest:
        """What several measurements of one launch say together of the limit that all of them were tested for."""
        requests, over = sum(test.requests for test in tests), sum(test.over for test in tests)
        effect = sum(test.design_effect * test.requests for test in tests) / requests if requests else 1.0
        return tests[0].model_copy(update={"requests": requests, "over": over, "design_effect": effect})

    @classmethod
    def pooled(cls, launches: Sequence[SLOTest]) -> SLOTest:
        """The same of several launches."""
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

    It may be asked after each request.

    Args:
        requests: Independent ones; need not be whole.
        over: Of those.
        allowed: The share that may be over: 0.01 for p99.
        tests: How many such tests must not err together; each may err in so much fewer cases (Bonferroni).
    """
    if requests <= 0:
        return Verdict.OPEN
    if _log_evidence(requests, over, allowed) < math.log(tests / CHANCE):
        return Verdict.OPEN
    return Verdict.HOLDS if over < allowed * requests else Verdict.BREAKS


def _log_evidence(requests: float, over: float, allowed: float) -> float:
    """The logarithm of the likelihood of smaller, or larger, shares than the allowed one, over that of this.

    Those on the side of the share that was seen, mixed by Jeffreys' prior, which is a beta distribution.

    Args:
        requests: Independent ones.
        over: Of those.
        allowed: The share that may be over.
    """
    within = requests - over
    mass = special.betainc if over < allowed * requests else special.betaincc
    after = special.betaln(0.5 + over, 0.5 + within) + math.log(mass(0.5 + over, 0.5 + within, allowed))
    before = math.log(math.pi * mass(0.5, 0.5, allowed))
    return float(after - before - over * math.log(allowed) - within * math.log1p(-allowed))


def together(verdicts: Iterable[Verdict]) -> Verdict:
    """Of several limits, all of which must hold."""
    kinds = set(verdicts)
    return Verdict.BREAKS if Verdict.BREAKS in kinds else Verdict.OPEN if Verdict.OPEN in kinds else Verdict.HOLDS
