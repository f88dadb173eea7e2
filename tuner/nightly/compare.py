"""Launches the deployed config and a candidate in pairs, side by side, until the gate can decide."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from tuner.core.errors import ServerError, TuningError
from tuner.core.loads import Concurrency, SteadyLoad
from tuner.core.objectives import THROUGHPUT, Objective
from tuner.core.quantities import format_ms
from tuner.core.slo import SLO
from tuner.measure.points import OperatingPoint
from tuner.nightly.comparison import LEAST_PAIRS, LOOKS, MOST_PAIRS, Comparison, PairedLaunch
from tuner.nightly.gate import is_settled
from tuner.recommend.recommend import NEAR
from tuner.stats.slo_verdict import Verdict

LaunchOnce = Callable[[int], PairedLaunch]
"""Launches and measures a config once, given the number of the pair (from 1); may raise a `ServerError`."""


@dataclass(frozen=True)
class ComparisonTerms:
    """The terms of a comparison.

    Attributes:
        slo: The limits.
        loads: The loads of the candidate, in descending order.
        min_gain: The least gain worth acting on, as a share.
        seed: The seed of the order within pairs.
        until: Deadline for beginning a pair, by `now`, after the first `LEAST_PAIRS`.
        at_last: Deadline for beginning any pair, by `now`.
        now: The clock, in seconds.
        objective: The objective, by which one is better.
    """

    slo: SLO
    loads: tuple[SteadyLoad, ...]
    min_gain: float
    seed: int
    until: float
    at_last: float
    now: Callable[[], float] = time.monotonic
    objective: Objective = THROUGHPUT


def compare(
    deployed: LaunchOnce, candidate: LaunchOnce, terms: ComparisonTerms, *, note: Callable[[str], None] = lambda _: None
) -> Comparison:
    """Launch pairs in random order, and decide after some of them (`LOOKS`) whether more are needed.

    Args:
        deployed: Launches the deployed config; after a failure it is launched once more.
        candidate: Launches the candidate; a failure ends the comparison.
        terms: The terms of the comparison.
        note: Takes progress messages.

    Raises:
        TuningError: the deployed config failed twice.
    """
    order = random.Random(terms.seed)  # noqa: S311 (no secret)
    result = Comparison(slo=terms.slo, loads=terms.loads, objective=terms.objective)
    began, pair_s = terms.now(), 0.0
    while result.pairs < MOST_PAIRS:
        end = terms.at_last if result.pairs < LEAST_PAIRS else terms.until
        if terms.now() + pair_s > end:
            break
        number = result.pairs + 1
        sides: dict[str, PairedLaunch] = {}
        try:
            for which in order.sample(["deployed", "candidate"], 2):
                sides[which] = candidate(number) if which == "candidate" else launch_deployed(deployed, number, note)
        except ServerError as error:
            result = result.model_copy(update={"failure": f"{error.cause.value}: {error}"})
            break
        result = result.model_copy(
            update={
                "deployed": (*result.deployed, sides["deployed"]),
                "candidate": (*result.candidate, sides["candidate"]),
            }
        )
        pair_s = (terms.now() - began) / result.pairs
        if (gain := result.gain) and result.pairs in LOOKS:
            note(
                f"{result.pairs} pairs of at most {MOST_PAIRS}: {gain.value:.2f} x ({gain.low:.2f} to {gain.high:.2f})"
            )
        if result.verdict is Verdict.BREAKS or (result.pairs in LOOKS and is_settled(result, min_gain=terms.min_gain)):
            break
    return result


def load_within(
    measure: Callable[[Concurrency], OperatingPoint],
    highest: Concurrency,
    slo: SLO,
    *,
    at_last: float,
    note: Callable[[str], None] = lambda _: None,
    now: Callable[[], float] = time.monotonic,
) -> Concurrency:
    """Find the highest load at which a candidate holds the SLO tonight with some margin, by halving and bisection.

    The load that the search found may be too high on another night. These launches have no part in the comparison.

    Args:
        measure: Launches and measures the candidate under a load.
        highest: The load that the search found.
        slo: The limits; without limits, the result is `highest`.
        at_last: Deadline for launches, by `now`.
        note: Takes progress messages.
        now: The clock, in seconds.

    Returns:
        The load; the lowest one tried where no load holds the SLO.

    Raises:
        ServerError: the candidate failed.
    """
    if not slo.root:
        return highest

    def holds(requests: int) -> bool:
        point = measure(Concurrency(requests))
        latency = point.latency_ms[slo.percentile]
        held = not point.errors and point.holds(slo, slower=NEAR) and point.verdict(slo) is not Verdict.BREAKS
        if not held:
            note(f"too little margin to {slo} at {point.load}: candidate {slo.percentile} {format_ms(latency.value)}")
        return held

    load, breaks = highest.requests, 0
    while now() < at_last and not holds(load) and load > 1:
        load, breaks = load // 2, load
    between = round(math.sqrt(load * breaks))
    if load < between < breaks and now() < at_last and holds(between):
        return Concurrency(between)
    return Concurrency(load)


def launch_deployed(deployed: LaunchOnce, number: int, note: Callable[[str], None]) -> PairedLaunch:
    """Launch the deployed config; after a failure, which may be an accident, launch it once more.

    Raises:
        TuningError: the deployed config failed twice.
    """
    try:
        return deployed(number)
    except ServerError as error:
        note(f"the deployed config failed ({error.cause.value}: {error}); relaunching it once")
    try:
        return deployed(number)
    except ServerError as error:
        raise TuningError(f"the deployed config does not work: {error.cause.value}: {error}") from error
