"""Plots of fronts: of one job, and of several in one plot."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tuner.client.resources import FrontPoint, Trial
from tuner.core.objectives import MAXIMIZED, THROUGHPUT, Objective
from tuner.core.quantities import format_ms, format_number, parse_duration
from tuner.service.pages.drawing import Drawing, Key, Limit, Mark, Path, Place, Scale, Shape, dots, line, steps

MOST_DOTS = 1500
"""Number of points beside the front that are drawn: more look the same, and make the page heavy."""

_SHAPES: tuple[Shape, ...] = ("circle", "diamond", "square", "triangle", "cross")
MOST_COMPARED = len(_SHAPES)
"""Number of fronts in one plot."""

_Values = tuple[float, float]


def upward_of(options: Mapping[str, Any]) -> Objective:
    """What the upward axis shows for a job with these options: the objective, or throughput beside a latency."""
    metric = next((each for each in MAXIMIZED if each == options.get("maximize")), THROUGHPUT.metric)
    return Objective(metric=metric)


def front_drawing(
    model: str,
    front: Sequence[FrontPoint],
    trials: Sequence[Trial],
    slo: str = "",
    *,
    upward: Objective = THROUGHPUT,
    first: str = "baseline",
) -> Drawing:
    """The front of a model, its baseline, and all other points measured.

    Args:
        model: Name of the model.
        front: Its points, in order of throughput.
        trials: Its trials.
        slo: The SLO in words.
        upward: What the upward axis shows.
        first: Name of the curve of trial 0.
    """
    percentile = front[0].percentile if front else "p99"
    title = _title(upward, percentile)
    curves = {trial.number: list(_values(trial, percentile, upward)) for trial in trials}
    others = [values for number, curve in curves.items() if number for values in curve]
    baseline = curves.get(0, [])  # in order of load
    if not others and not baseline and not front:
        return Drawing(title, missing="No operating point was measured yet.")
    limit = limit_ms(slo, percentile)
    everything = [*(_values_of(point, upward) for point in front), *others, *baseline]
    across = Scale.of([x for x, _ in everything] + ([limit] if limit else []))
    up = Scale.of((y for _, y in everything), log=False)

    def place(values: _Values) -> Place:
        return across.at(values[0]), 100 - up.at(values[1])

    thinned = others[:: max(1, math.ceil(len(others) / MOST_DOTS))]
    best = next((point for point in front if point.best), None)
    by_latency = sorted((point for point in front if point.on_front), key=lambda point: point.latency_ms.value)
    return Drawing(
        title,
        alt=_alt(model, front, best, sum(map(len, curves.values()))),
        note="Up and to the left is better.",
        x_title=_axis_title(f"{percentile} latency, ms", across),
        y_title=upward.unit,
        x_ticks=across.ticks(5),
        y_ticks=up.ticks(),
        paths=[
            Path(dots(map(place, thinned)), "others dots"),
            Path(line(map(place, baseline)), "baseline dashed"),
            Path(steps([place(_values_of(point, upward)) for point in by_latency]), "front dotted"),
        ],
        marks=[
            *(
                Mark(*place(each), "square", "baseline", f"{first}: {_in_words(each, percentile, upward)}")
                for each in baseline
            ),
            *(
                Mark(
                    *place(_values_of(point, upward)),
                    "star" if point.best else "circle",
                    "best" if point.best else "front",
                    point_in_words(point),
                )
                for point in sorted(front, key=lambda point: point.best)
            ),
        ],
        limits=[Limit("x", across.at(limit), f"SLO {percentile} ≤ {format_ms(limit)}")] if limit else [],
        legend=[
            *([Key(first, "baseline", "square")] if baseline else []),
            *([Key("front", "front", "circle")] if front else []),
            *([Key("best", "best", "star")] if best else []),
            *([Key("other points", "others", "circle")] if others else []),
        ],
    )


def compared_fronts(
    fronts: Mapping[str, Sequence[FrontPoint]], slos: Sequence[str], upwards: Sequence[Objective]
) -> Drawing:
    """The fronts of one model by several jobs.

    Args:
        fronts: By the name of the job.
        slos: The SLO of each job in words: it is drawn if all have the same.
        upwards: What the upward axis shows for each job.
    """
    known = {name: sorted(front, key=lambda p: p.latency_ms.value) for name, front in fronts.items() if front}
    if not known:
        return Drawing("Fronts", missing="None of these jobs has a front yet.")
    percentiles = {point.percentile for front in known.values() for point in front}
    if len(percentiles) > 1:
        return Drawing("Fronts", missing=f"The jobs limit different percentiles: {', '.join(sorted(percentiles))}.")
    if len(metrics := {upward.words for upward in upwards}) > 1:
        return Drawing("Fronts", missing=f"The jobs have different objectives: {', '.join(sorted(metrics))}.")
    (percentile,), upward = percentiles, upwards[0]
    limit = limit_ms(slos[0], percentile) if len(set(slos)) == 1 else None
    points = [point for front in known.values() for point in front]
    across = Scale.of([p.latency_ms.value for p in points] + ([limit] if limit else []))
    up = Scale.of((_values_of(point, upward)[1] for point in points), log=False)
    paths: list[Path] = []
    marks: list[Mark] = []
    legend: list[Key] = []
    for number, name in enumerate(fronts):
        if name not in known:
            continue
        style, shape = f"series-{number + 1}", _SHAPES[number % len(_SHAPES)]
        places = [(across.at(x), 100 - up.at(y)) for x, y in (_values_of(point, upward) for point in known[name])]
        on_front = [place for place, point in zip(places, known[name], strict=True) if point.on_front]
        paths.append(Path(steps(on_front), f"{style} dotted"))
        marks += [
            Mark(*place, shape, f"{style} chosen" if point.best else style, f"{name}: {point_in_words(point)}")
            for place, point in zip(places, known[name], strict=True)
        ]
        legend.append(Key(name, style, shape))
    highest = {name: max(_values_of(point, upward)[1] for point in front) for name, front in known.items()}
    tops = (f"{name} reaches {format_number(value)} {upward.unit}" for name, value in highest.items())
    return Drawing(
        _title(upward, percentile),
        alt=f"Fronts of {len(known)} jobs: {', '.join(tops)}.",
        note="Up and to the left is better. The best configuration of a job has a ring.",
        x_title=_axis_title(f"{percentile} latency, ms", across),
        y_title=upward.unit,
        x_ticks=across.ticks(5),
        y_ticks=up.ticks(),
        paths=paths,
        marks=marks,
        limits=[Limit("x", across.at(limit), f"SLO {percentile} ≤ {format_ms(limit)}")] if limit else [],
        legend=legend,
    )


def limit_ms(slo: str, percentile: str) -> float | None:
    """The limit on a latency percentile in an SLO in words, such as `p99 <= 25 ms`, in ms; None: there is none."""
    for part in slo.split(","):
        name, _, limit = part.partition("<=")
        if name.strip() == percentile:
            try:
                return parse_duration(limit.replace(" ", ""), units=("ms",)) * 1e3
            except ValueError:
                return None
    return None


def load_in_words(load: Mapping[str, Any]) -> str:
    """A load of `front.json`: `concurrency 16`."""
    return ", ".join(f"{name.replace('_', ' ')} {_level(value)}" for name, value in load.items())


def point_in_words(point: FrontPoint) -> str:
    """A point of the front in a line."""
    return (
        f"trial {point.trial}{', best' if point.best else ''}: "
        f"{format_number(point.throughput.value)} inferences/s, "
        f"{point.percentile} {format_ms(point.latency_ms.value)} at {load_in_words(point.load)}"
        f"{', verified' if point.verified else ''}"
    )


def _level(value: Any) -> str:
    return " to ".join(f"{each:g}" for each in value) if isinstance(value, list | tuple) else f"{value}"


def _title(upward: Objective, percentile: str) -> str:
    return f"{upward.words[:1].upper()}{upward.words[1:]} against {percentile} latency"


def _values_of(point: FrontPoint, upward: Objective) -> _Values:
    """Latency, and the value of the upward axis."""
    value = point.throughput if upward == THROUGHPUT else point.objective_value
    return point.latency_ms.value, value.value if value else 0.0


def _values(trial: Trial, percentile: str, upward: Objective) -> Iterator[_Values]:
    """The same of each point of a trial that has both."""
    name = "throughput" if upward == THROUGHPUT else "objective_value"
    for point in trial.points:
        latency, value = point.get("latency_ms", {}).get(percentile), point.get(name)
        if latency and value and latency["value"] and value["value"] is not None:
            yield latency["value"], value["value"]


def _in_words(values: _Values, percentile: str, upward: Objective) -> str:
    return f"{format_number(values[1])} {upward.unit}, {percentile} {format_ms(values[0])}"


def _axis_title(title: str, scale: Scale) -> str:
    return f"{title} (log)" if scale.log else title


def _alt(model: str, front: Sequence[FrontPoint], best: FrontPoint | None, points: int) -> str:
    held = f" The best is {point_in_words(best)}." if best else ""
    return f"Front of {model}: {len(front)} of {points} operating points.{held}"
