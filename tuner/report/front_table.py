"""The front of a study as a table, and the legend of its trials."""

from __future__ import annotations

from rich.table import Table

from tuner.core.quantities import format_number
from tuner.recommend.front import TrialPoint
from tuner.recommend.recommend import Recommendation, holds
from tuner.results.why import why_in_words
from tuner.results.words import each_in_words, latency, loads_in_words, rate, warnings_of_points
from tuner.space.candidate import Assignment, in_words

WARNED = "?"
"""Marks a point with quality warnings."""


def front_table(recommendation: Recommendation, most: int | None = None) -> Table:
    """A row for each point of the front, the best point and the baseline's; dim if the point violates the SLO.

    Args:
        recommendation: Of the study.
        most: Number of rows at most; None: as many as there are points.
    """
    percentile, points = recommendation.percentile, front_points(recommendation)
    shown = points if most is None else points_that_matter(recommendation, most)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    load, offered = loads_in_words([trial_point.point for trial_point in shown])
    title = "front" if len(shown) == len(points) else f"front ({len(shown)} of {len(points)})"
    table.add_column(title)
    each = filter(None, [each_in_words(recommendation.objective)])
    first = [] if percentile == "p50" else ["p50"]
    for column in ("trial", load, "inferences/s", *each, *first, percentile, "mean batch"):
        table.add_column(column, justify="right")
    for trial_point, at in zip(shown, offered, strict=True):
        style = (
            "bold" if trial_point == recommendation.best else "" if holds(trial_point, recommendation.slo) else "dim"
        )
        table.add_row(*_front_row(trial_point, at, recommendation), style=style)
    return table


def front_points(recommendation: Recommendation) -> tuple[TrialPoint, ...]:
    """The front, the best point and the baseline's, by latency. The last two need not be on the front."""
    front, percentile = recommendation.front, recommendation.percentile
    added = {
        id(point): point for point in (recommendation.best, recommendation.baseline) if point and point not in front
    }
    return tuple(sorted((*front, *added.values()), key=lambda point: point.latency_ms(percentile)))


def points_that_matter(recommendation: Recommendation, most: int) -> tuple[TrialPoint, ...]:
    """The best point, the baseline's, and the points of the front nearest to the best one, in order of latency.

    If there is no best point, the points of lowest latency.

    Args:
        recommendation: Of the study.
        most: Number of points at most, at least 2.
    """
    points, best = front_points(recommendation), recommendation.best
    middle = points.index(best) if best else 0
    by_distance = sorted(range(len(points)), key=lambda n: (points[n] != recommendation.baseline, abs(n - middle)))
    first = sorted(by_distance, key=lambda n: points[n] != best)[:most]
    return tuple(points[n] for n in sorted(first))


def _front_row(trial_point: TrialPoint, at: str, recommendation: Recommendation) -> tuple[str, ...]:
    point = trial_point.point
    average, value = point.average_batch_size, point.value(recommendation.objective)
    each = [format_number(value.value) if value else ""] if each_in_words(recommendation.objective) else []
    marks = {
        "best": trial_point == recommendation.best,
        "baseline": trial_point == recommendation.baseline != recommendation.best,
        WARNED: bool(point.warnings),
    }
    return (
        " ".join(mark for mark, holds_for_it in marks.items() if holds_for_it),
        str(trial_point.trial.number),
        at,
        rate(point.throughput.value),
        *each,
        *([] if recommendation.percentile == "p50" else [latency(point.latency_ms["p50"].value)]),
        latency(trial_point.latency_ms(recommendation.percentile)),
        "" if average is None else f"{average:.1f}",
    )


def front_legend(recommendation: Recommendation, baseline: Assignment) -> str:
    """A line for each trial of the table with its changes of the baseline, and a line for each quality warning."""
    points = front_points(recommendation)
    trials = {trial_point.trial.number: trial_point.trial.parameters for trial_point in points}
    words = {number: in_words(parameters, baseline) if number else "baseline" for number, parameters in trials.items()}
    lines = [f"  trial {number}: {words[number]}" for number in sorted(words)]
    warned = [
        (f"  {WARNED} trial {trial_point.trial.number} ", trial_point.point)
        for trial_point in points
        if trial_point.point.warnings
    ]
    lines += warnings_of_points(warned)
    return "\n".join(lines)


def front_reasons(recommendation: Recommendation) -> str:
    """Why each point of the table is good, a line for each; points without the server's statistics have no line."""
    sentences = [(trial_point, why_in_words(trial_point)) for trial_point in front_points(recommendation)]
    return "\n".join(
        f"  trial {trial_point.trial.number} at {trial_point.point.load}: {why}"
        for trial_point, why in sentences
        if why
    )
