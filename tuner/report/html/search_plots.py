"""Plots of the search: the hypervolume over time, and the importance of parameters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from tuner.analysis.importance import importances
from tuner.core.objectives import Objective
from tuner.core.quantities import format_duration
from tuner.report.html.plots import FRONT, Plot, axis, escape, hover
from tuner.report.html.symbols import TIMES, short_name
from tuner.report.html.trial_views import TrialView
from tuner.study.study import Study


def progress_plot(study: Study, candidates: Sequence[TrialView]) -> Plot:
    """The hypervolume against the time spent on trials."""
    title, areas, objective = "How the search went", study.hypervolumes, study.identity.objective
    if not candidates:
        return Plot("progress", title, missing="no trial has finished")
    ends = list(accumulate(0.0 if view.trial.imported else view.trial.wall_s for view in candidates))
    unit, seconds = next((u, s) for u, s in (("h", 3600), ("min", 60), ("s", 1)) if ends[-1] > 2 * s or s == 1)
    steps = list(zip(candidates, ends, areas, strict=False))
    final = steps[-1][2] if steps else 0.0
    if not final:
        return Plot("progress", title, missing="no point holds the SLO yet, so the hypervolume is 0")
    return Plot(
        "progress",
        title,
        alt=(
            f"Stairs of the hypervolume of the front after each of {len(steps)} trials, "
            f"in {format_duration(max(ends[-1], 1e-3))}; the last value is {final:,.4g}."
        ),
        note=_hypervolume_in_words(study.identity.objective),
        traces=[
            {
                "type": "scatter",
                "name": "hypervolume",
                "mode": "lines+markers",
                "x": [end / seconds for _, end, _ in steps],
                "y": [area for _, _, area in steps],
                "text": [
                    hover(
                        f"trial {c.number}",
                        c.words,
                        f"after {format_duration(max(end, 1e-3))}",
                        f"hypervolume {area:,.4g}",
                    )
                    for c, end, area in steps
                ],
                "customdata": [c.number for c, _, _ in steps],
                "hovertemplate": "%{text}<extra></extra>",
                "line": {"color": FRONT, "width": 2, "shape": "hv"},
                "marker": {"color": FRONT, "size": 6 if len(steps) < 60 else 3},
            }
        ],
        layout={
            "xaxis": axis(f"time of trials, {unit}", log=False),
            "yaxis": axis(f"{objective.unit} {TIMES} ms" if objective.maximizes else "1/s"),
            "showlegend": False,
        },
    )


def _hypervolume_in_words(objective: Objective) -> str:
    if not objective.maximizes:
        return f"Hypervolume: the inverse of the lowest {objective.words}. It grows when a candidate is quicker."
    return (
        "Hypervolume: the area that the front dominates, up to the SLO's latency limit. "
        f"It grows when a candidate improves {objective.words} or latency."
    )


def importance_plot(study: Study) -> Plot:
    """The importance of each parameter."""
    title, importance = "Parameter importance", importances(study)
    if importance.reason:
        return Plot("importance", title, missing=f"not available: {importance.reason}")
    shares = dict(reversed(list(importance.shares.items())))  # Plotly counts from below.
    most = next(iter(importance.shares))
    return Plot(
        "importance",
        title,
        alt=f"Bars of the importance of {len(shares)} parameters; the first is {most} with {shares[most]:.0%}.",
        note=(
            f"Importance for {study.identity.objective.words} within the SLO, over {importance.trials} trials "
            "(PED-ANOVA)."
        ),
        traces=[
            {
                "type": "bar",
                "name": "importance",
                "orientation": "h",
                "x": list(shares.values()),
                "y": [escape(short_name(name)) for name in shares],
                "text": [f"{share:.0%}" for share in shares.values()],
                "textposition": "auto",
                "hoverinfo": "skip",
                "marker": {"color": FRONT},
            }
        ],
        layout={
            "xaxis": {"title": {"text": "share"}, "tickformat": ".0%", "rangemode": "tozero"},
            "yaxis": {"automargin": True, "type": "category"},
            "showlegend": False,
            "bargap": 0.35,
        },
    )
