"""The main plot: all operating points, throughput against latency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tuner.core.objectives import THROUGHPUT
from tuner.core.quantities import format_number
from tuner.measure.points import OperatingPoint
from tuner.recommend.front import TrialPoint
from tuner.recommend.recommend import Recommendation
from tuner.report.html.plots import BASELINE, BEST, FRONT, LIMIT, OTHERS, Plot, Trace, axis, hover, range_in_words
from tuner.report.html.trial_views import TrialView, warnings_of
from tuner.results.points_json import short
from tuner.results.words import each_in_words, latency, point_in_words, rate

FRONT_TRACE, SELECTED_TRACE = "front", "selected candidate"


def front_plot(candidates: Sequence[TrialView], recommendation: Recommendation) -> Plot:
    """The objective, or throughput beside a latency, against latency; one line for each candidate."""
    percentile, upward = recommendation.percentile, recommendation.objective.upward
    title = f"{upward.words.capitalize() if upward == THROUGHPUT else upward.words} against {percentile} latency"
    points = [trial_point for candidate in candidates for trial_point in candidate.points]
    if not points:
        return Plot("front", title, missing="no operating point was measured")
    words = {candidate.number: candidate.words for candidate in candidates}
    others = [candidate for candidate in candidates if candidate.number and candidate.points]
    traces = [
        _curves("candidates", others, recommendation, OTHERS, words),
        _curves("baseline", [c for c in candidates if not c.number and c.points], recommendation, BASELINE, words),
        {
            **_empty(SELECTED_TRACE, "lines+markers", FRONT),
            "line": {"color": "@text", "width": 2.5},
            "marker": {"color": "@text", "size": 9, "symbol": "circle-open", "line": {"width": 2, "color": "@text"}},
        },
        _front(recommendation, words),
        _best(recommendation, words),
        _failing(candidates, recommendation, words),
    ]
    limit = recommendation.slo.limit_ms(percentile)
    latencies = [trial_point.latency_ms(percentile) for trial_point in points]
    across = axis(f"{percentile} latency, ms", [*latencies, *([limit] if limit else [])])
    log = across.get("type") == "log"
    # Fixed ranges, so that the plot does not move when a candidate with wide intervals is selected.
    across |= {"range": _range([*latencies, *([limit] if limit else [])], log=log), "autorange": False}
    highest = max(_height(trial_point, recommendation) for trial_point in points)
    up = {**axis(upward.unit), "range": [0, 1.08 * highest], "autorange": False}
    better = "Up and to" if recommendation.objective.rate is None else "To"
    return Plot(
        "front",
        title,
        alt=_alt(candidates, points, recommendation),
        note=f"{better} the left is better. Select a point, or a trial in the table below, to see its config.",
        traces=[trace for trace in traces if trace["x"] or trace["name"] == SELECTED_TRACE],
        layout={
            "xaxis": across,
            "yaxis": up,
            **(_limit_line(limit, recommendation, log=log) if limit else {}),
        },
        tall=True,
    )


def _height(trial_point: TrialPoint, recommendation: Recommendation) -> float:
    return trial_point.merit(recommendation.objective.upward).value


def point_hover(trial_point: TrialPoint, recommendation: Recommendation, words: str, *, best: bool = False) -> str:
    """The hover text of an operating point."""
    point, percentile = trial_point.point, recommendation.percentile
    throughput, slow = point.throughput, point.latency_ms[percentile]
    average, value = point.average_batch_size, point.value(recommendation.objective)
    added = each_in_words(recommendation.objective)
    return hover(
        f"trial {trial_point.trial.number}{', best' if best else ''}",
        words,
        f"at {point.load}",
        f"{rate(throughput.value)} inferences/s ({range_in_words(throughput.low, throughput.high, rate)})",
        f"{format_number(value.value)} {recommendation.objective.unit}" if added and value else "",
        f"{percentile} {latency(slow.value)} ({range_in_words(slow.low, slow.high, latency)})",
        f"batches of {average:.1f} on average" if average else "",
        "verified: re-measured on other launches" if trial_point.verified else "",
        f"quality warnings: {warnings_of(point)}" if point.warnings else "",
    )


def _curves(
    name: str, candidates: Sequence[TrialView], recommendation: Recommendation, colour: str, words: dict[int, str]
) -> Trace:
    """Curves as one trace, with gaps between them, which browsers draw fast even for many curves."""
    x: list[float | None] = []
    y: list[float | None] = []
    texts: list[str] = []
    numbers: list[int] = []
    for candidate in candidates:
        for trial_point in candidate.points:
            x.append(short(trial_point.latency_ms(recommendation.percentile)))
            y.append(short(_height(trial_point, recommendation)))
            texts.append(point_hover(trial_point, recommendation, words[candidate.number]))
        x.append(None)
        y.append(None)
        texts.append("")
        numbers += [candidate.number] * (len(candidate.points) + 1)
    many = len(candidates) > 40
    base = name == "baseline"
    return {
        **_empty(name, "lines+markers", colour),
        "x": x,
        "y": y,
        "text": texts,
        "customdata": numbers,
        "line": {"color": colour, "width": 2.25 if base else 1, "dash": "dash" if base else "solid"},
        "marker": {"color": colour, "size": 8 if base else 3 if many else 5, "symbol": "square" if base else "circle"},
        "opacity": 0.55 if many and not base else 1,
    }


def _front(recommendation: Recommendation, words: dict[int, str]) -> Trace:
    """The front, as steps of the highest throughput within each latency."""
    return {
        **_empty(FRONT_TRACE, "lines+markers", FRONT),
        **_points(recommendation.front, recommendation, words),
        "line": {"color": FRONT, "width": 1.5, "shape": "hv", "dash": "dot"},
        "marker": {"color": FRONT, "size": 9},
    }


def _best(recommendation: Recommendation, words: dict[int, str]) -> Trace:
    return {
        **_empty("best", "markers", BEST),
        **_points([recommendation.best] if recommendation.best else [], recommendation, words, best=True),
        "marker": {"color": BEST, "size": 17, "symbol": "star", "line": {"color": "@surface", "width": 1.5}},
    }


def _points(
    points: Sequence[TrialPoint], recommendation: Recommendation, words: dict[int, str], *, best: bool = False
) -> dict[str, Any]:
    return {
        "x": [short(trial_point.latency_ms(recommendation.percentile)) for trial_point in points],
        "y": [short(_height(trial_point, recommendation)) for trial_point in points],
        "text": [
            point_hover(trial_point, recommendation, words[trial_point.trial.number], best=best)
            for trial_point in points
        ],
        "customdata": [trial_point.trial.number for trial_point in points],
    }


def _failing(candidates: Sequence[TrialView], recommendation: Recommendation, words: dict[int, str]) -> Trace:
    """Operating points with requests that failed or were late, which are never recommended."""
    upward = recommendation.objective.upward
    failing = [
        (c.number, point, value.value)
        for c in candidates
        for point in c.trial.curve
        if not point.is_answered and (value := point.value(upward))
    ]
    at_rate = recommendation.objective.rate is not None
    return {
        **_empty("did not keep up" if at_rate else "some requests failed", "markers", LIMIT),
        "x": [point.latency_ms[recommendation.percentile].value for _, point, _ in failing],
        "y": [value for _, _, value in failing],
        "text": [_failing_hover(number, point, recommendation, words[number]) for number, point, _ in failing],
        "customdata": [number for number, _, _ in failing],
        "marker": {"color": LIMIT, "size": 8, "symbol": "x-thin", "line": {"color": LIMIT, "width": 2}},
    }


def _failing_hover(number: int, point: OperatingPoint, recommendation: Recommendation, words: str) -> str:
    late = "the server did not keep up" if point.kept_up is False else ""
    failure = f"{point.errors:,} requests failed: {point.error}" if point.errors else late
    return hover(
        f"trial {number}", words, point_in_words(point, recommendation.percentile, recommendation.objective), failure
    )


def _empty(name: str, mode: str, colour: str) -> Trace:
    return {
        "type": "scatter",
        "name": name,
        "mode": mode,
        "x": [],
        "y": [],
        "text": [],
        "customdata": [],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"color": colour},
    }


def _range(values: Sequence[float], *, log: bool) -> list[float]:
    """The range of an axis with margins; Plotly expects logarithms for a logarithmic axis."""
    if log:
        logs = [math.log10(value) for value in values if value > 0]
        margin = 0.04 * (max(logs) - min(logs))
        return [min(logs) - margin, max(logs) + margin]
    return [0, 1.06 * max(values)]


def _limit_line(limit_ms: float, recommendation: Recommendation, *, log: bool) -> dict[str, Any]:
    """The line at the SLO. On logarithmic axes Plotly places annotations by logarithm, but shapes by value."""
    line = {"color": LIMIT, "width": 1.5, "dash": "dashdot"}
    shape = {"type": "line", "x0": limit_ms, "x1": limit_ms, "yref": "paper", "y0": 0, "y1": 1, "line": line}
    label = {
        "x": math.log10(limit_ms) if log else limit_ms,
        "y": 0.02,
        "yref": "paper",
        "xanchor": "right",
        "yanchor": "bottom",
        "text": f"SLO {recommendation.percentile} ≤ {limit_ms:g} ms",
        "textangle": -90,
        "showarrow": False,
        "font": {"color": LIMIT, "size": 12},
    }
    return {"shapes": [shape], "annotations": [label]}


def _alt(candidates: Sequence[TrialView], points: Sequence[TrialPoint], recommendation: Recommendation) -> str:
    percentile = recommendation.percentile
    text = f"Scatter plot of {len(points)} operating points of {sum(bool(c.points) for c in candidates)} candidates. "
    if recommendation.front:
        first, last = recommendation.front[0], recommendation.front[-1]
        text += (
            f"The front goes from {point_in_words(first.point, percentile)} "
            f"to {point_in_words(last.point, percentile)}. "
        )
    if best := recommendation.best:
        text += f"Best is trial {best.trial.number}: {point_in_words(best.point, percentile)}. "
    return text + "The table of all trials has the same numbers."
