"""Plots of throughput and latency against the load, for the baseline and the finalists."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tuner.core.loads import Concurrency
from tuner.recommend.front import TrialPoint
from tuner.recommend.recommend import Recommendation
from tuner.report.html.front_plot import point_hover
from tuner.report.html.plots import BASELINE, LIMIT, Plot, Trace, axis, doubling_axis, series
from tuner.report.html.trial_views import TrialView

# The most curves beside the baseline that can be told apart.
_MOST = 5


def finalists(candidates: Sequence[TrialView], found: Recommendation) -> tuple[TrialView, ...]:
    """The baseline, the best trial, and the trials with most points on the front."""
    counts: dict[int, int] = {}
    for each in found.front:
        counts[each.trial.number] = counts.get(each.trial.number, 0) + 1
    best = [found.best.trial.number] if found.best else []
    numbers = [*best, *sorted(counts, key=lambda number: -counts[number])]
    chosen = [number for number in dict.fromkeys(numbers) if number][:_MOST]
    by_number = {candidate.number: candidate for candidate in candidates}
    return tuple(by_number[number] for number in (0, *chosen) if number in by_number)


def load_plots(candidates: Sequence[TrialView], found: Recommendation) -> tuple[Plot, Plot]:
    """Throughput, and latency at the SLO's percentile, against concurrency."""
    percentile, shown = found.slo.percentile, finalists(candidates, found)
    limit = dict(found.slo.limits).get(percentile)
    throughput = _plot("load-throughput", "Throughput under load", "inferences/s", shown, found, _throughput)
    slow = _plot(
        "load-latency",
        f"{percentile} latency under load",
        f"{percentile} latency, ms",
        shown,
        found,
        lambda each: each.latency_ms(percentile),
        limit,
    )
    return throughput, slow


def _throughput(each: TrialPoint) -> float:
    return each.point.throughput.value


def _plot(  # noqa: PLR0917 (it is called just above)
    key: str,
    title: str,
    unit: str,
    shown: Sequence[TrialView],
    found: Recommendation,
    pick: Callable[[TrialPoint], float],
    limit: float | None = None,
) -> Plot:
    curves = [(c, [p for p in c.points if isinstance(p.point.load, Concurrency)]) for c in shown]
    curves = [(candidate, points) for candidate, points in curves if points]
    if not curves:
        return Plot(key, title, missing="no closed-loop load was measured")
    values = [pick(each) for _, points in curves for each in points]
    levels = [each.point.load.level for _, points in curves for each in points]
    traces = [_curve(index, candidate, points, found, pick) for index, (candidate, points) in enumerate(curves)]
    if limit:
        traces.append(_limit(limit, levels, found))
    return Plot(
        key,
        title,
        alt=f"Lines of {unit} against concurrency for {', '.join(_name(c, found) for c, _ in curves)}.",
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
    found: Recommendation,
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
        "name": _name(candidate, found),
        "x": [each.point.load.level for each in points],
        "y": [pick(each) for each in points],
        "text": [point_hover(each, found, candidate.words) for each in points],
        "customdata": [candidate.number] * len(points),
        "hovertemplate": "%{text}<extra></extra>",
        **look,
    }


def _limit(limit: float, levels: Sequence[float], found: Recommendation) -> Trace:
    return {
        "type": "scatter",
        "name": f"SLO {found.slo.percentile} ≤ {limit:g} ms",
        "mode": "lines",
        "x": [min(levels), max(levels)],
        "y": [limit, limit],
        "hoverinfo": "skip",
        "line": {"color": LIMIT, "width": 1.5, "dash": "dashdot"},
    }


def _name(candidate: TrialView, found: Recommendation) -> str:
    if not candidate.number:
        return "baseline"
    is_best = found.best is not None and found.best.trial.number == candidate.number
    return f"trial {candidate.number}{', best' if is_best else ''}"
