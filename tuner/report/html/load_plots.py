"""Plots of throughput and latency against the load, for the baseline and the finalists."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tuner.core.loads import Concurrency
from tuner.recommend.front import TrialPoint
from tuner.recommend.recommend import Recommendation
from tuner.report.html.front_plot import point_hover
from tuner.report.html.plots import BASELINE, LIMIT, Plot, Trace, axis, doubling_axis, series
from tuner.report.html.trial_views import TrialView

# The most curves, besides the baseline's, that a reader can distinguish.
_MOST = 5


def finalists(candidates: Sequence[TrialView], recommendation: Recommendation) -> tuple[TrialView, ...]:
    """The baseline, the best trial, and the trials with most points on the front."""
    counts: dict[int, int] = {}
    for trial_point in recommendation.front:
        counts[trial_point.trial.number] = counts.get(trial_point.trial.number, 0) + 1
    best = [recommendation.best.trial.number] if recommendation.best else []
    numbers = [*best, *sorted(counts, key=lambda number: -counts[number])]
    chosen = [number for number in dict.fromkeys(numbers) if number][:_MOST]
    by_number = {candidate.number: candidate for candidate in candidates}
    return tuple(by_number[number] for number in (0, *chosen) if number in by_number)


def load_plots(candidates: Sequence[TrialView], recommendation: Recommendation) -> tuple[Plot, Plot]:
    """Throughput, and latency at the SLO's percentile, against concurrency."""
    percentile, shown = recommendation.percentile, finalists(candidates, recommendation)
    limit = recommendation.slo.limit_ms(percentile)
    throughput = _plot("load-throughput", "Throughput under load", "inferences/s", shown, recommendation, _throughput)
    slow = _plot(
        "load-latency",
        f"{percentile} latency under load",
        f"{percentile} latency, ms",
        shown,
        recommendation,
        lambda trial_point: trial_point.latency_ms(percentile),
        limit,
    )
    return throughput, slow


def _throughput(trial_point: TrialPoint) -> float:
    return trial_point.point.throughput.value


def _plot(  # noqa: PLR0917 (called just above)
    key: str,
    title: str,
    unit: str,
    shown: Sequence[TrialView],
    recommendation: Recommendation,
    pick: Callable[[TrialPoint], float],
    limit: float | None = None,
) -> Plot:
    curves = [(c, [p for p in c.points if isinstance(p.point.load, Concurrency)]) for c in shown]
    curves = [(candidate, points) for candidate, points in curves if points]
    if not curves:
        return Plot(key, title, missing="no closed-loop load was measured")
    values = [pick(trial_point) for _, points in curves for trial_point in points]
    levels = [trial_point.point.load.level for _, points in curves for trial_point in points]
    traces = [
        _curve(index, candidate, points, recommendation, pick) for index, (candidate, points) in enumerate(curves)
    ]
    if limit:
        traces.append(_limit(limit, levels, recommendation))
    return Plot(
        key,
        title,
        alt=f"Lines of {unit} against concurrency for {', '.join(_name(c, recommendation) for c, _ in curves)}.",
        traces=traces,
        layout={
            "xaxis": doubling_axis("concurrency", levels),
            "yaxis": axis(unit, values, log=False if pick is _throughput else None),
        },
    )


def _curve(
    index: int,
    candidate: TrialView,
    points: Sequence[TrialPoint],
    recommendation: Recommendation,
    pick: Callable[[TrialPoint], float],
) -> Trace:
    look = series(max(0, index - 1))
    if not candidate.number:
        look = {
            "mode": "lines+markers",
            "line": {"color": BASELINE, "width": 2, "dash": "dash"},
            "marker": {"color": BASELINE, "size": 7, "symbol": "square"},
        }
    return {
        "type": "scatter",
        "name": _name(candidate, recommendation),
        "x": [trial_point.point.load.level for trial_point in points],
        "y": [pick(trial_point) for trial_point in points],
        "text": [point_hover(trial_point, recommendation, candidate.words) for trial_point in points],
        "customdata": [candidate.number] * len(points),
        "hovertemplate": "%{text}<extra></extra>",
        **look,
    }


def _limit(limit: float, levels: Sequence[float], recommendation: Recommendation) -> Trace:
    return {
        "type": "scatter",
        "name": f"SLO {recommendation.percentile} ≤ {limit:g} ms",
        "mode": "lines",
        "x": [min(levels), max(levels)],
        "y": [limit, limit],
        "hoverinfo": "skip",
        "line": {"color": LIMIT, "width": 1.5, "dash": "dashdot"},
    }


def _name(candidate: TrialView, recommendation: Recommendation) -> str:
    if not candidate.number:
        return "baseline"
    is_best = recommendation.best is not None and recommendation.best.trial.number == candidate.number
    return f"trial {candidate.number}{', best' if is_best else ''}"
