"""The front of a study as a table, and what its trials are."""

from __future__ import annotations

from rich.table import Table

from tuner.recommend.front import TrialPoint
from tuner.recommend.recommend import Recommendation, holds
from tuner.results.why import why_in_words
from tuner.results.words import latency, loads_in_words, rate, warnings_of_points
from tuner.space.candidate import Assignment, in_words

WARNED = "?"
"""Marks a point with quality warnings."""


def front_table(recommendation: Recommendation, most: int | None = None) -> Table:
    """The front, the best point and the baseline's, one row a point; points that violate the SLO are dim.

    Args:
        recommendation: Of the study.
        most: Number of rows at most; None: as many as there are points.
    """
    percentile, points = recommendation.slo.percentile, front_points(recommendation)
    shown = points if most is None else points_that_matter(recommendation, most)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    load, offered = loads_in_words([each.point for each in shown])
    title = "front" if len(shown) == len(points) else f"front ({len(shown)} of {len(points)})"
    table.add_column(title)
    for column in ("trial", load, "inferences/s", "p50", percentile, "mean batch"):
        table.add_column(column, justify="right")
    for each, at in zip(shown, offered, strict=True):
        style = "bold" if each == recommendation.best else "" if holds(each, recommendation.slo) else "dim"
        table.add_row(*_front_row(each, at, recommendation), style=style)
    return table


def front_points(recommendation: Recommendation) -> tuple[TrialPoint, ...]:
    """The front, the best point and the baseline's, by latency; the last two may lie behind the front."""
    front, percentile = recommendation.front, recommendation.slo.percentile
    added = {id(each): each for each in (recommendation.best, recommendation.baseline) if each and each not in front}
    return tuple(sorted((*front, *added.values()), key=lambda each: each.latency_ms(percentile)))


def points_that_matter(recommendation: Recommendation, most: int) -> tuple[TrialPoint, ...]:
    """The best point, the baseline's, and the points nearest to the best in order of latency.

    When there is no best point, those of the lowest latency.

    Args:
        recommendation: Of the study.
        most: Number of points at most, at least 2.
    """
    points, best = front_points(recommendation), recommendation.best
    middle = points.index(best) if best else 0
    by_distance = sorted(range(len(points)), key=lambda n: (points[n] != recommendation.baseline, abs(n - middle)))
    first = sorted(by_distance, key=lambda n: points[n] != best)[:most]
    return tuple(points[n] for n in sorted(first))


def _front_row(each: TrialPoint, at: str, recommendation: Recommendation) -> tuple[str, ...]:
    point = each.point
    average = point.average_batch_size
    marks = {
        "best": each == recommendation.best,
        "baseline": each == recommendation.baseline != recommendation.best,
        WARNED: bool(point.warnings),
    }
    return (
        " ".join(mark for mark, holds_for_it in marks.items() if holds_for_it),
        str(each.trial.number),
        at,
        rate(point.throughput.value),
        latency(point.latency_ms["p50"].value),
        latency(each.latency_ms(recommendation.slo.percentile)),
        "" if average is None else f"{average:.1f}",
    )


def front_legend(recommendation: Recommendation, baseline: Assignment) -> str:
    """What the trials of the table are, compared with the baseline, and the quality warnings, one line each."""
    points = front_points(recommendation)
    trials = {each.trial.number: each.trial.parameters for each in points}
    words = {number: in_words(parameters, baseline) if number else "baseline" for number, parameters in trials.items()}
    lines = [f"  trial {number}: {words[number]}" for number in sorted(words)]
    warned = [(f"  {WARNED} trial {each.trial.number} ", each.point) for each in points if each.point.warnings]
    lines += warnings_of_points(warned)
    return "\n".join(lines)


def front_reasons(recommendation: Recommendation) -> str:
    """Why each point of the table is good, one line each; points of which the server reports nothing have none."""
    sentences = [(each, why_in_words(each)) for each in front_points(recommendation)]
    return "\n".join(f"  trial {each.trial.number} at {each.point.load}: {why}" for each, why in sentences if why)
