"""The sweep: the loads of one candidate's measurement, from low to high, and then near the SLO or the knee."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise

from tuner.core.loads import Concurrency
from tuner.core.objectives import THROUGHPUT, Objective
from tuner.core.slo import SLO
from tuner.measure.plan import Plan
from tuner.measure.points import OperatingPoint
from tuner.measure.rivals import NOBODY, Rivals
from tuner.stats.slo_verdict import Verdict

Curve = Plan[Concurrency, list[OperatingPoint]]

# The load stops rising after this number of doublings without a growth of throughput by this factor.
_GROWTH, _FLAT_DOUBLINGS = 1.05, 2
# More doublings are allowed while two doublings let batches grow by this factor. For example, a batch of two can take
# twice as long as one request, but a batch of eight no longer than a batch of two.
_BATCHES_GROW, _FLAT_DOUBLINGS_THEN = 1.5, 4
# A candidate is beaten when rivals are better at this number of consecutive levels, and its growth has slowed down:
# throughput grew by at most this factor with the last doubling of the load.
_BEATEN_LEVELS, _SLOWING = 3, 1.25
# Levels of the bisection at the SLO's edge.
_EDGE_LEVELS = 2


def sweep(
    *,
    slo: SLO,
    max_concurrency: int,
    flat_from: int = 1,
    rivals: Rivals = NOBODY,
    objective: Objective = THROUGHPUT,
) -> Curve:
    """Plan a curve.

    First the load rises; see `rise`. Then come levels in between. If a load violates the SLO, these are two levels of a
    bisection between the highest load that holds it and the next one. Otherwise it is one level at the knee, below the
    first load with almost the highest throughput. So the points are not in order of load; see `in_order_of_load`.

    Args:
        slo: The limits; may be empty.
        max_concurrency: The highest load to offer, in requests in flight.
        flat_from: See `rise`.
        rivals: See `rise`; a beaten candidate gets no levels in between.
        objective: The objective by which rivals beat it.

    Returns:
        The points, in the order in which they were measured.
    """
    points = yield from rise(
        slo=slo, max_concurrency=max_concurrency, flat_from=flat_from, rivals=rivals, objective=objective
    )
    if not _is_beaten(points, slo, rivals, objective):
        if edge := _edge(points, slo):
            points += yield from _bisect(slo, *edge)
        elif middle := _knee(points, slo):
            points.append((yield Concurrency(middle)))
    return points


def rise(
    *,
    slo: SLO,
    max_concurrency: int,
    flat_from: int = 1,
    rivals: Rivals = NOBODY,
    objective: Objective = THROUGHPUT,
) -> Curve:
    """Double concurrency from 1 until throughput stops growing, the SLO is violated, or `max_concurrency` is reached.

    It also ends when rivals are clearly better at the last three levels (see `Rivals.beat`), and growth slows down.

    Args:
        slo: The limits; may be empty.
        max_concurrency: The highest load to offer, in requests in flight.
        flat_from: The concurrency from which flat throughput ends the rise. A dynamic batcher closes batches before
            instances are idle. So throughput grows little below about 4 requests per instance, and much above.
        rivals: Operating points of other candidates.
        objective: See `sweep`.

    Returns:
        The points, in order of load.
    """
    points: list[OperatingPoint] = []
    for concurrency in _doublings(max_concurrency):
        points.append((yield Concurrency(concurrency)))
        if _is_broken(points, slo):
            break
        if concurrency >= flat_from and (_is_flat(points) or _is_beaten(points, slo, rivals, objective)):
            break
    return points


def in_order_of_load(points: Iterable[OperatingPoint]) -> tuple[OperatingPoint, ...]:
    """The curve: a sweep's points in order of load."""
    return tuple(sorted(points, key=lambda point: point.load.level))


def _doublings(highest: int) -> Iterator[int]:
    concurrency = 1
    while concurrency < highest:
        yield concurrency
        concurrency *= 2
    yield highest


def _is_broken(points: list[OperatingPoint], slo: SLO) -> bool:
    """Whether the last point violates the SLO by its interval (95 %) or test (99 %), or the last two as measured.

    A single point may be over the limit by chance.
    """
    shown = not slo.holds({name: interval.low for name, interval in points[-1].limitable_ms.items()})
    shown = (shown or points[-1].verdict(slo) is Verdict.BREAKS) and not points[-1].warnings
    return shown or (len(points) > 1 and not any(point.holds(slo) for point in points[-2:]))


def _is_flat(points: list[OperatingPoint]) -> bool:
    """Whether throughput stayed below `_GROWTH` times its reference in the last doublings.

    The reference moves up only when throughput has grown by that factor, so that slow growth adds up.
    """
    best, since = points[0].throughput.value, 0
    for point in points[1:]:
        grows = point.throughput.value > best * _GROWTH
        best, since = (point.throughput.value, 0) if grows else (best, since + 1)
    return since >= (_FLAT_DOUBLINGS_THEN if _batches_grow(points) else _FLAT_DOUBLINGS)


def _batches_grow(points: list[OperatingPoint]) -> bool:
    """Whether the mean batch grew by more than `_BATCHES_GROW` in the last two doublings."""
    sizes = [point.average_batch_size or 0.0 for point in points[-1 - _FLAT_DOUBLINGS :]]
    return sizes[0] > 0 and sizes[-1] > _BATCHES_GROW * sizes[0]


def _is_beaten(points: list[OperatingPoint], slo: SLO, rivals: Rivals, objective: Objective) -> bool:
    """Whether rivals are clearly better at the last levels, and growth slows down.

    Growth must slow down, since batches may still fill while throughput grows in proportion to the load. A point with a
    quality warning, such as load from elsewhere, is never beaten.
    """
    last = points[-_BEATEN_LEVELS:]
    if len(last) < _BEATEN_LEVELS or last[-1].throughput.value > _SLOWING * last[-2].throughput.value:
        return False
    return all(
        not point.warnings
        and point.value(objective) is not None
        and rivals.beat(point.merit(objective), point.latency_ms[slo.percentile])
        for point in last
    )


def _edge(points: list[OperatingPoint], slo: SLO) -> tuple[int, int] | None:
    """The highest load that holds the SLO, and the next one, which violates it; None: the last one holds it."""
    edges = [
        (_requests(lower), _requests(upper))
        for lower, upper in pairwise(points)
        if lower.holds(slo) and not upper.holds(slo)
    ]
    return edges[-1] if edges and not points[-1].holds(slo) else None


def _bisect(slo: SLO, holding: int, breaking: int) -> Curve:
    points: list[OperatingPoint] = []
    for _ in range(_EDGE_LEVELS):
        middle = round(math.sqrt(holding * breaking))
        if not holding < middle < breaking:
            break
        points.append((yield Concurrency(middle)))
        holding, breaking = (middle, breaking) if points[-1].holds(slo) else (holding, middle)
    return points


def _knee(points: list[OperatingPoint], slo: SLO) -> int | None:
    """A load just below the first level with almost the highest throughput; None if no load lies between the levels.

    It may give as much throughput at a lower latency.
    """
    if not points[-1].holds(slo):
        return None
    almost_all = max(point.throughput.value for point in points) / _GROWTH
    for lower, upper in pairwise(points):
        if upper.throughput.value >= almost_all > lower.throughput.value:
            middle = round(math.sqrt(_requests(lower) * _requests(upper)))
            return middle if _requests(lower) < middle < _requests(upper) else None
    return None


def _requests(point: OperatingPoint) -> int:
    """The concurrency of a point of a closed loop."""
    return int(point.load.level)
