"""One candidate's curve: which loads to measure, from low to high, and where it pays to look closer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise

from tuner.core.loads import Concurrency
from tuner.core.slo import SLO
from tuner.measure.plan import Plan
from tuner.measure.points import OperatingPoint
from tuner.measure.rivals import NOBODY, Rivals
from tuner.stats.limit_test import Verdict

Curve = Plan[Concurrency, list[OperatingPoint]]

# Throughput that grows by less in a doubling of the load has as good as stopped.
_GROWTH = 1.05
_FLAT_DOUBLINGS = 2
# While batches still grow by as much in two doublings, larger ones may pay yet: a batch of two can take twice as long
# as one, and one of eight no longer than that.
_BATCHES_GROW, _FLAT_DOUBLINGS_THEN = 1.5, 4
# At so many levels in a row others must do better.
_BEATEN_LEVELS = 3
# Throughput that grows by less in a doubling of the load is on its way to stop.
_SLOWING = 1.25
_EDGE_LEVELS = 2


def sweep(*, slo: SLO, max_concurrency: int, flat_from: int = 1, rivals: Rivals = NOBODY) -> Curve:
    """Plan a curve.

    First the load rises; see `rise`. Then come the levels between: at the SLO's edge by bisection, or, where no limit
    was met, one at the knee, below the first load that gives almost all throughput. So the points do not come in order
    of load; see `in_order_of_load`.

    Args:
        slo: The limits, maybe none.
        max_concurrency: The highest load to offer.
        flat_from: See `rise`.
        rivals: See `rise`; who is beaten by them is not looked at more closely.

    Returns:
        The points, in the order in which they were measured.
    """
    points = yield from rise(slo=slo, max_concurrency=max_concurrency, flat_from=flat_from, rivals=rivals)
    if not _is_beaten(points, slo, rivals):
        if edge := _edge(points, slo):
            points += yield from _bisect(slo, *edge)
        elif middle := _knee(points, slo):
            points.append((yield Concurrency(middle)))
    return points


def rise(*, slo: SLO, max_concurrency: int, flat_from: int = 1, rivals: Rivals = NOBODY) -> Curve:
    """Double concurrency from 1 until throughput has stopped growing, the SLO is broken, or the highest is reached.

    It also ends when others have surely done better at the last three levels, and growth is already on its way down.

    Args:
        slo: The limits, maybe none.
        max_concurrency: The highest load to offer.
        flat_from: The concurrency below which throughput that does not grow means nothing yet. A dynamic batcher
            closes batches ahead of its instances, so that little is gained below some 4 requests an instance, and
            much beyond.
        rivals: What others have reached.

    Returns:
        The points, in order of load.
    """
    points: list[OperatingPoint] = []
    for concurrency in _doublings(max_concurrency):
        points.append((yield Concurrency(concurrency)))
        if _is_broken(points, slo):
            break
        if concurrency >= flat_from and (_is_flat(points) or _is_beaten(points, slo, rivals)):
            break
    return points


def in_order_of_load(points: Iterable[OperatingPoint]) -> tuple[OperatingPoint, ...]:
    """The curve that a sweep's points make."""
    return tuple(sorted(points, key=lambda point: point.load.level))


def _doublings(highest: int) -> Iterator[int]:
    concurrency = 1
    while concurrency < highest:
        yield concurrency
        concurrency *= 2
    yield highest


def _is_broken(points: list[OperatingPoint], slo: SLO) -> bool:
    """Whether the last point breaks the SLO beyond doubt, or the last two by what was measured: one may be bad luck."""
    surely = not slo.holds({name: interval.low for name, interval in points[-1].latency_ms.items()})
    surely = (surely or points[-1].verdict(slo) is Verdict.BREAKS) and not points[-1].doubts
    return surely or (len(points) > 1 and not any(point.holds(slo) for point in points[-2:]))


def _is_flat(points: list[OperatingPoint]) -> bool:
    """Whether the last doublings together gained next to nothing over the best before them.

    Batches that still grow have a chance of more doublings. What counts as best moves up only by a gain that counts,
    so that slow growth adds up and is not cut short.
    """
    best, since = points[0].throughput.value, 0
    for point in points[1:]:
        grows = point.throughput.value > best * _GROWTH
        best, since = (point.throughput.value, 0) if grows else (best, since + 1)
    return since >= (_FLAT_DOUBLINGS_THEN if _batches_grow(points) else _FLAT_DOUBLINGS)


def _batches_grow(points: list[OperatingPoint]) -> bool:
    """Whether the server forms ever larger batches."""
    sizes = [point.average_batch_size or 0.0 for point in points[-1 - _FLAT_DOUBLINGS :]]
    return sizes[0] > 0 and sizes[-1] > _BATCHES_GROW * sizes[0]


def _is_beaten(points: list[OperatingPoint], slo: SLO, rivals: Rivals) -> bool:
    """Whether others surely did better at the last levels, and what a doubling of the load gains grows less.

    Who still grows in proportion to the load may only be waiting for fuller batches; and who was measured badly, such
    as beside load from elsewhere, was not beaten.
    """
    last = points[-_BEATEN_LEVELS:]
    if len(last) < _BEATEN_LEVELS or last[-1].throughput.value > _SLOWING * last[-2].throughput.value:
        return False
    return all(not point.doubts and rivals.beat(point.throughput, point.latency_ms[slo.percentile]) for point in last)


def _edge(points: list[OperatingPoint], slo: SLO) -> tuple[int, int] | None:
    """The highest load that holds the SLO, and the next one, which breaks it."""
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
    """A load between the first that gives almost all throughput and the one before it, if there is room for more.

    It may give as much at a lower latency.
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
