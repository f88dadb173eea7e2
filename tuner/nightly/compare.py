"""Launches what is deployed and a candidate side by side, in pairs, until it is clear which is better."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from tuner.core.errors import ServerError, TuningError
from tuner.core.loads import Concurrency
from tuner.core.quantities import format_ms
from tuner.core.slo import SLO
from tuner.measure.points import OperatingPoint
from tuner.nightly.comparison import LEAST_PAIRS, LOOKS, MOST_PAIRS, Comparison, PairedLaunch
from tuner.nightly.gate import is_settled
from tuner.recommend.recommend import NEAR
from tuner.stats.limit_test import Verdict

LaunchOnce = Callable[[int], PairedLaunch]
"""Launches a config once, for the pair of this number, from 1, and measures it; it may raise a `ServerError`."""


@dataclass(frozen=True)
class ComparisonTerms:
    """What holds for all pairs.

    Attributes:
        loads: Of the candidate, the highest first.
        min_gain: The gain that is worth acting, as a share.
        seed: Of the order within pairs.
        until: When to begin no further pair, once there are `LEAST_PAIRS` (by `now`).
        at_last: When to begin none at all.
        now: The clock, in seconds.
    """

    slo: SLO
    loads: tuple[Concurrency, ...]
    min_gain: float
    seed: int
    until: float
    at_last: float
    now: Callable[[], float] = time.monotonic


def compare(
    deployed: LaunchOnce, candidate: LaunchOnce, terms: ComparisonTerms, *, note: Callable[[str], None] = lambda _: None
) -> Comparison:
    """Launch pairs in random order, and look after some of them whether they tell enough.

    Args:
        deployed: Launches what is deployed; a failure is tried once more.
        candidate: Launches what may take its place; a failure ends it.
        terms: On all of it.
        note: Is told what happens.

    Raises:
        TuningError: what is deployed fails.
    """
    order = random.Random(terms.seed)  # noqa: S311 (no secret)
    told = Comparison(slo=terms.slo, loads=terms.loads)
    began, pair_s = terms.now(), 0.0
    while told.pairs < MOST_PAIRS:
        end = terms.at_last if told.pairs < LEAST_PAIRS else terms.until
        if terms.now() + pair_s > end:
            break
        number = told.pairs + 1
        sides: dict[str, PairedLaunch] = {}
        try:
            for which in order.sample(["deployed", "candidate"], 2):
                sides[which] = candidate(number) if which == "candidate" else launched(deployed, number, note)
        except ServerError as error:
            told = told.model_copy(update={"failure": f"{error.cause.value}: {error}"})
            break
        told = told.model_copy(
            update={
                "deployed": (*told.deployed, sides["deployed"]),
                "candidate": (*told.candidate, sides["candidate"]),
            }
        )
        pair_s = (terms.now() - began) / told.pairs
        if (gain := told.gain) and told.pairs in LOOKS:
            note(f"{told.pairs} pairs of at most {MOST_PAIRS}: {gain.value:.2f} x ({gain.low:.2f} to {gain.high:.2f})")
        if told.verdict is Verdict.BREAKS or (told.pairs in LOOKS and is_settled(told, min_gain=terms.min_gain)):
            break
    return told


def load_within(
    measure: Callable[[Concurrency], OperatingPoint],
    highest: Concurrency,
    slo: SLO,
    *,
    at_last: float,
    note: Callable[[str], None] = lambda _: None,
    now: Callable[[], float] = time.monotonic,
) -> Concurrency:
    """The highest load at which a candidate seems to hold the SLO tonight with some room: halved, then between.

    What the search found may be too much on another night. The launches that tell have no part in the comparison.

    Args:
        measure: Launches the candidate, and measures it.
        highest: What the search found.
        slo: The limits; without any, it is the highest.
        at_last: When to launch nothing more.
        note: Is told what happens.
        now: The clock, in seconds.

    Returns:
        The lowest load that was tried, where it holds the SLO at none.

    Raises:
        ServerError: the candidate failed.
    """
    if not slo.root:
        return highest

    def holds(requests: int) -> bool:
        point = measure(Concurrency(requests))
        told = point.latency_ms[slo.percentile]
        held = not point.errors and point.holds(slo, slower=NEAR) and point.verdict(slo) is not Verdict.BREAKS
        if not held:
            note(f"too little margin to {slo} at {point.load}: candidate {slo.percentile} {format_ms(told.value)}")
        return held

    load, breaks = highest.requests, 0
    while now() < at_last and not holds(load) and load > 1:
        load, breaks = load // 2, load
    between = round(math.sqrt(load * breaks))
    if load < between < breaks and now() < at_last and holds(between):
        return Concurrency(between)
    return Concurrency(load)


def launched(deployed: LaunchOnce, number: int, note: Callable[[str], None]) -> PairedLaunch:
    """Launch what is deployed; after a failure, which may be an accident, once more.

    Raises:
        TuningError: it failed twice.
    """
    try:
        return deployed(number)
    except ServerError as error:
        note(f"the deployed config failed ({error.cause.value}: {error}); relaunching it once")
    try:
        return deployed(number)
    except ServerError as error:
        raise TuningError(f"the deployed config does not work: {error.cause.value}: {error}") from error
