"""The front of a study as a table, and what its trials are."""

from __future__ import annotations

from rich import box
from rich.table import Table

from tuner.recommend.front import TrialPoint
from tuner.recommend.recommend import Recommendation, holds
from tuner.results.why import why_in_words
from tuner.results.words import all_doubts_in_words, latency, loads_in_words, rate
from tuner.space.candidate import Assignment, in_words

_DOUBTFUL = "?"


def front_table(recommendation: Recommendation) -> Table:
    """The front and the best point, one row a point; the best one is marked, and so are doubtful ones."""
    percentile, points = recommendation.slo.percentile, _points(recommendation)
    table = Table(box=box.SIMPLE_HEAD)
    load, offered = loads_in_words([each.point for each in points])
    for column in ("", "trial", load, "inferences/s", "p50", percentile, "mean batch"):
        table.add_column(column, justify="right")
    for each, at in zip(points, offered, strict=True):
        table.add_row(*_front_row(each, at, recommendation), style=None if holds(each, recommendation.slo) else "dim")
    return table


def _points(recommendation: Recommendation) -> tuple[TrialPoint, ...]:
    """Those of the front, and the best one, which what was measured once and by luck may beat."""
    front, best, percentile = recommendation.front, recommendation.best, recommendation.slo.percentile
    if best is None or best in front:
        return front
    return tuple(sorted((*front, best), key=lambda each: each.latency_ms(percentile)))


def _front_row(each: TrialPoint, at: str, recommendation: Recommendation) -> tuple[str, ...]:
    point = each.point
    average = point.average_batch_size
    return (
        " ".join(["best"] * (each == recommendation.best) + [_DOUBTFUL] * bool(point.doubts)),
        str(each.trial.number),
        at,
        rate(point.throughput.value),
        latency(point.latency_ms["p50"].value),
        latency(each.latency_ms(recommendation.slo.percentile)),
        "" if average is None else f"{average:.1f}",
    )


def front_legend(recommendation: Recommendation, baseline: Assignment) -> str:
    """What the trials of the front are, beside the config as it is, and why a point is doubtful, one line each."""
    trials = {each.trial.number: each.trial.parameters for each in _points(recommendation)}
    words = {
        number: in_words(parameters, baseline) if number else "the config as it is"
        for number, parameters in trials.items()
    }
    lines = [f"  trial {number}: {words[number]}" for number in sorted(words)]
    doubtful = [
        (f"  {_DOUBTFUL} trial {each.trial.number} ", each.point)
        for each in _points(recommendation)
        if each.point.doubts
    ]
    lines += all_doubts_in_words(doubtful)
    return "\n".join(lines)


def front_reasons(recommendation: Recommendation) -> str:
    """Why each point of the table is good, one line each; without those of which the server says nothing."""
    told = [(each, why_in_words(each)) for each in _points(recommendation)]
    return "\n".join(f"  trial {each.trial.number} at {each.point.load}: {why}" for each, why in told if why)
