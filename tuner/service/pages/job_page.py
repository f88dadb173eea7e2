"""The page of a job: its trials, the front and the log, all of them cut to what a page can bear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tuner.client.resources import Job, ModelResult, Trial
from tuner.core.quantities import format_duration, format_ms, format_number
from tuner.core.record import Interval
from tuner.core.slo import PERCENTILES
from tuner.service.job_view import LogLine
from tuner.service.pages.front_plots import limit_ms, load_in_words

MOST_TRIALS = 50
"""Trials on a page."""

MOST_RESULTS = 100
"""Models on a page."""

MOST_FILES = 100
"""Files on a page."""

MOST_POINTS = 200
"""Points of a measurement on a page."""

_LOG_LINES = 200


@dataclass(frozen=True)
class TrialRow:
    """A trial in a table.

    Attributes:
        number: Its number.
        state: `running`, `measured` or `failed`.
        candidate: The candidate in words.
        throughput: Of its best point, in inferences/s; empty: none.
        latency: Of the same point, with percentile and unit.
        points: Number of its points.
        took: How long it took; empty: it runs.
        failure: Why it failed; empty: it did not.
        host: The host that measured it; empty: it is under way, or the job has only one.
    """

    number: int
    state: str
    candidate: str
    throughput: str
    latency: str
    points: int
    took: str
    failure: str
    host: str = ""


@dataclass(frozen=True)
class TrialPage:
    """Some of the trials of a model, the newest first.

    Attributes:
        rows: The trials.
        older: Number below which the older ones are; None: there are none.
        shown: Which ones these are, in words.
    """

    rows: tuple[TrialRow, ...]
    older: int | None
    shown: str


def current_model(job: Job, trials: Sequence[Trial], results: Sequence[ModelResult], asked: str = "") -> str:
    """The model that the page shows: the one asked for, or the one that the job works on; empty: none yet."""
    names = {trial.model for trial in trials} | {result.model for result in results}
    if asked in names:
        return asked
    if trials and not job.is_final:
        return trials[-1].model
    return results[0].model if results else trials[0].model if trials else ""


def trial_page(trials: Sequence[Trial], percentile: str, slo: str, below: int | None = None) -> TrialPage:
    """A page of the trials of one model.

    Args:
        trials: All of them, in order of their numbers.
        percentile: Whose latency is shown.
        slo: The SLO in words.
        below: Only trials with smaller numbers; None: the newest ones.
    """
    wanted = [trial for trial in trials if below is None or trial.number < below]
    shown = wanted[-MOST_TRIALS:][::-1]
    limit = limit_ms(slo, percentile)
    words = ""
    if shown and len(trials) > len(shown):
        words = f"{shown[-1].number} to {shown[0].number} of {len(trials):,} trials"
    return TrialPage(
        tuple(_row(trial, percentile, limit) for trial in shown),
        shown[-1].number if len(wanted) > len(shown) else None,
        words,
    )


@dataclass(frozen=True)
class PointRow:
    """An operating point of a measurement: its values as text."""

    load: str
    throughput: Interval | None
    latencies: tuple[Interval | None, ...]
    requests: int | None
    warnings: str


def point_rows(trials: Sequence[Trial]) -> tuple[PointRow, ...]:
    """The points of a measurement, in order of load; latencies by `PERCENTILES`."""
    points = [point for trial in trials for point in trial.points][:MOST_POINTS]
    return tuple(
        PointRow(
            load_in_words(point.get("load", {})),
            _interval(point.get("throughput")),
            tuple(_interval(point.get("latency_ms", {}).get(name)) for name in PERCENTILES),
            point.get("requests"),
            ", ".join(str(doubt.get("reason", "")) for doubt in point.get("doubts") or ()),
        )
        for point in points
    )


def announcement(job: Job) -> str:
    """The state of a job in a line, for screen readers."""
    doing = f": {job.phase}" if job.phase and not job.is_final else ""
    best = max((result.throughput.value for result in job.results if result.throughput), default=None)
    found = f"; best {format_number(best)} inferences/s" if best is not None else ""
    return f"Job {job.id} is {job.state}{doing}{found}"


def log_lines(lines: Sequence[LogLine], since: datetime) -> str:
    """The latest events in words, each with the time since the submission."""
    shown = lines[-_LOG_LINES:]
    seconds = [round((line.at - since).total_seconds()) for line in shown]
    times = [format_duration(each) if each > 0 else "0s" for each in seconds]
    width = max(map(len, times), default=0)
    return "\n".join(f"{time:>{width}}  {line.text}" for time, line in zip(times, shown, strict=True))


def _interval(value: Mapping[str, Any] | None) -> Interval | None:
    """An INTERVAL of `front.json`; None: unknown, or without an end."""
    if value is None or any(value.get(end) is None for end in ("value", "low", "high")):
        return None
    return Interval.model_validate({end: value[end] for end in ("value", "low", "high")})


def _row(trial: Trial, percentile: str, limit: float | None) -> TrialRow:
    point = _best_point(trial.points, percentile, limit)
    return TrialRow(
        trial.number,
        trial.state,
        trial.candidate,
        format_number(point[1]) if point else "",
        f"{percentile} {format_ms(point[0])}" if point else "",
        len(trial.points),
        format_duration(trial.wall_s) if trial.wall_s else "",
        trial.failure or "",
        trial.host,
    )


def _best_point(
    points: Sequence[Mapping[str, Any]], percentile: str, limit: float | None
) -> tuple[float, float] | None:
    """Latency and throughput of the fastest point within the limit; of the one with the least latency if none is."""
    values = [
        (point["latency_ms"][percentile]["value"], point["throughput"]["value"])
        for point in points
        if point.get("latency_ms", {}).get(percentile) and point.get("throughput")
    ]
    known = [(latency, throughput) for latency, throughput in values if latency is not None and throughput is not None]
    within = [value for value in known if limit is None or value[0] <= limit]
    if within:
        return max(within, key=lambda value: value[1])
    return min(known, default=None)
