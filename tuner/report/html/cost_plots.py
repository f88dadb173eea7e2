"""Plots of the parts of a request's time, and of GPU memory."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.core.quantities import format_size
from tuner.recommend.front import TrialPoint
from tuner.recommend.recommend import Recommendation
from tuner.report.html.front_plot import point_hover
from tuner.report.html.plots import BASELINE, BEST, FRONT, Plot, Trace, axis
from tuner.report.html.trial_views import TrialView
from tuner.results.words import latency

_PARTS = (
    ("queue", "@part-1"),
    ("compute: input", "@part-2"),
    ("compute: model", "@part-3"),
    ("compute: output", "@part-4"),
    ("transport and client", "@part-5"),
)


def time_plot(candidates: Sequence[TrialView], recommendation: Recommendation) -> Plot:
    """The parts of the mean latency of the baseline and the best config, at their best loads."""
    title = "Where a request's time goes"
    named = {
        "baseline": recommendation.baseline or (candidates[0].shown if candidates else None),
        "best": recommendation.best,
    }
    if recommendation.best and recommendation.best == recommendation.baseline:
        named = {"baseline, best": recommendation.best}
    parts = {
        f"{name}, at {trial_point.point.load}": times_ms
        for name, trial_point in named.items()
        if trial_point and (times_ms := _parts_ms(trial_point))
    }
    if not parts:
        return Plot("time", title, missing="the server reported no times")
    rows = dict(reversed(parts.items()))  # Plotly counts from below.
    return Plot(
        "time",
        title,
        alt=" ".join(
            f"{row}: {', '.join(f'{name} {latency(ms)}' for (name, _), ms in zip(_PARTS, times_ms, strict=True))}."
            for row, times_ms in parts.items()
        ),
        note="Mean over all requests: queue and compute times from Triton, the rest from the client.",
        traces=[
            {
                "type": "bar",
                "name": name,
                "orientation": "h",
                "x": [times_ms[index] for times_ms in rows.values()],
                "y": list(rows),
                "text": [f"{name}: {latency(times_ms[index])}" for times_ms in rows.values()],
                "textposition": "none",
                "hovertemplate": "%{text}<extra></extra>",
                "marker": {"color": colour, "line": {"color": "@surface", "width": 1}},
            }
            for index, (name, colour) in enumerate(_PARTS)
        ],
        layout={
            "barmode": "stack",
            "xaxis": axis("ms, mean", log=False),
            "yaxis": {"automargin": True, "type": "category"},
            "bargap": 0.45,
        },
    )


def _parts_ms(trial_point: TrialPoint) -> tuple[float, ...]:
    """Parts of the mean latency in ms: queue, input, model, output, rest; empty if the server reported none."""
    server = trial_point.point.server
    if server is None or trial_point.point.histogram.mean_ms is None:
        return ()
    inside = (server.queue_ms, server.compute_input_ms, server.compute_infer_ms, server.compute_output_ms)
    return (*inside, max(0.0, trial_point.point.histogram.mean_ms - sum(inside)))


def memory_plot(candidates: Sequence[TrialView], recommendation: Recommendation) -> Plot | None:
    """Throughput against GPU memory; None if no GPU was in use."""
    measured = [(c, p, gib) for c in candidates for p in c.points if (gib := _taken_gib(c, p)) is not None]
    if not measured:
        return None
    best, baseline = recommendation.best and recommendation.best.trial.number, 0
    groups = (
        ("candidates", FRONT, [row for row in measured if row[0].number not in {best, baseline}]),
        ("baseline", BASELINE, [row for row in measured if row[0].number == baseline and best != baseline]),
        ("best", BEST, [row for row in measured if row[0].number == best]),
    )
    most = max(gib for _, _, gib in measured)
    return Plot(
        "memory",
        "GPU memory and throughput",
        alt=f"Scatter plot of throughput against GPU memory of {len(measured)} points; at most {most:.3g} GiB.",
        note="GPU memory that the server used, on the GPU where it used most.",
        traces=[_dots(name, colour, rows, recommendation) for name, colour, rows in groups if rows],
        layout={"xaxis": axis("GPU memory, GiB", log=False), "yaxis": axis("inferences/s")},
    )


def _taken_gib(candidate: TrialView, trial_point: TrialPoint) -> float | None:
    taken = trial_point.point.gpu.taken_bytes if trial_point.point.gpu else None
    if taken is None and candidate.trial.gpu_memory:
        taken = candidate.trial.gpu_memory.peak_bytes
    return None if taken is None else taken / 2**30


def _dots(
    name: str, colour: str, rows: Sequence[tuple[TrialView, TrialPoint, float]], recommendation: Recommendation
) -> Trace:
    return {
        "type": "scatter",
        "name": name,
        "mode": "markers",
        "x": [gib for _, _, gib in rows],
        "y": [trial_point.point.throughput.value for _, trial_point, _ in rows],
        "text": [
            f"{point_hover(trial_point, recommendation, c.words)}<br>{format_size(gib * 2**30)} of GPU memory"
            for c, trial_point, gib in rows
        ],
        "customdata": [c.number for c, _, _ in rows],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"color": colour, "size": 8, "symbol": {"best": "star", "baseline": "square"}.get(name, "circle")},
    }
