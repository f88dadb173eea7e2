"""Plots of the nights of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tuner.client.resources import NightEntry
from tuner.core.quantities import format_ms, format_number
from tuner.core.record import Interval
from tuner.service.pages.drawing import Drawing, Key, Limit, Mark, Path, Scale, Shape, TimeScale, line, whisker
from tuner.service.pages.front_plots import limit_ms

MOST_NIGHTS = 200
"""Number of nights in a plot: the latest ones."""

_MARKS: dict[str, tuple[Shape, str]] = {
    "kept": ("circle", "front"),
    "improved": ("star", "best"),
    "regression": ("diamond", "bad"),
    "failed": ("cross", "bad"),
}


def history_drawings(nights: Sequence[NightEntry], slo: str = "") -> tuple[Drawing, Drawing]:
    """Throughput and latency of the deployed configuration of a model, night by night.

    Args:
        nights: Nights of one model, in any order.
        slo: Its SLO in words.
    """
    latest = sorted(nights, key=lambda night: night.night)[-MOST_NIGHTS:]
    percentile = next((night.percentile for night in reversed(latest) if night.percentile), "p99")
    same = [night for night in latest if night.percentile == percentile]
    return (
        _drawing("Throughput", "inferences/s", [(night, night.throughput) for night in latest], format_number),
        _drawing(
            f"{percentile} latency",
            "ms",
            [(night, night.latency_ms) for night in same],
            format_ms,
            limit=limit_ms(slo, percentile),
        ),
    )


def _drawing(
    title: str,
    unit: str,
    nights: Sequence[tuple[NightEntry, Interval | None]],
    in_words: Callable[[float], str],
    *,
    limit: float | None = None,
) -> Drawing:
    measured = [(night, value) for night, value in nights if value]
    if not measured:
        return Drawing(title, missing="No night has measured it yet.")
    across = TimeScale.of(night.night for night, _ in measured)
    up = Scale.of([value.high for _, value in measured] + ([limit] if limit else []), log=False)
    places = [(across.at(night.night), 100 - up.at(value.value)) for night, value in measured]
    kinds = list(dict.fromkeys(night.outcome for night, _ in measured))
    last_night, last = measured[-1]
    return Drawing(
        title,
        alt=(
            f"{title} of {len(measured)} nights; the last one, {last_night.night:%Y-%m-%d}: "
            f"{in_words(last.value)} ({in_words(last.low)} to {in_words(last.high)})."
        ),
        y_title=unit,
        x_ticks=across.ticks(),
        y_ticks=up.ticks(5),
        paths=[
            Path(
                "".join(
                    whisker(x, 100 - up.at(value.low), 100 - up.at(value.high))
                    for (x, _), (_, value) in zip(places, measured, strict=True)
                ),
                "front whiskers",
            ),
            Path(line(places), "front"),
        ],
        marks=[
            Mark(x, y, *_mark(night.outcome), f"{night.night:%Y-%m-%d}: {in_words(value.value)}, {night.outcome}")
            for (x, y), (night, value) in zip(places, measured, strict=True)
        ],
        limits=[Limit("y", 100 - up.at(limit), f"SLO ≤ {format_ms(limit)}")] if limit else [],
        legend=[Key(kind, _mark(kind)[1], _mark(kind)[0]) for kind in kinds],
    )


def _mark(outcome: str) -> tuple[Shape, str]:
    return _MARKS.get(outcome, ("circle", "others"))
