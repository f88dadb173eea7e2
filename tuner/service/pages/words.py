"""Numbers, times and names in the words of the pages: filters of the templates."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

import yaml
from markupsafe import Markup
from pydantic import ValidationError

from tuner.client.resources import Job, JobKind, Role
from tuner.core.quantities import format_duration, format_ms, format_number
from tuner.core.record import Interval
from tuner.core.slo import SLO
from tuner.report.html.symbols import TIMES, in_symbols

Tone = Literal["good", "unsure", "bad"]

UNKNOWN = "\N{EN DASH}"
"""What stands for a value that is not known."""

OUTCOME_TONES: Mapping[str, Tone] = {"improved": "good", "regression": "bad", "failed": "bad"}
"""Tones of the outcomes of a night; `kept` has none."""

ROLE_WORDS: Mapping[Role, str] = {
    "read": "sees everything",
    "submit": "and submits, cancels and repeats jobs; changes targets and schedules",
    "approve": "and decides on proposals",
    "admin": "and manages tokens",
}

KIND_WORDS: Mapping[JobKind, str] = {
    "tune": "search for the best configuration",
    "nightly": "one night of a target: compare the deployed configuration with a better one",
    "measure": "measure the configuration as it is",
}

ACTION_WORDS = {"propose": "waits for approval", "apply": "is deployed at once; needs the role approve"}


def interval(value: Interval | None, unit: Literal["rate", "ms", "gain"]) -> Markup:
    """A value with its 95 % interval: `6,861 (6,700 to 7,012)`."""
    if value is None:
        return Markup('<span class="unknown">{}</span>').format(UNKNOWN)
    if unit == "gain":
        return Markup('{} <small class="interval">{:.2f} to {:.2f}</small>').format(gain(value), value.low, value.high)
    ends = f"{format_number(value.low)} to {format_number(value.high)}"
    words = format_ms(value.value) if unit == "ms" else format_number(value.value)
    return Markup('{} <small class="interval">{}</small>').format(words, ends)


def gain(value: Interval) -> str:
    """A gain as a factor, such as 1.42 with the sign of multiplication."""
    return f"{value.value:.2f}{TIMES}"


def gain_tone(value: Interval | None) -> Tone | Literal[""]:
    """Whether a gain is one: its interval lies above 1, below 1, or around it."""
    if value is None:
        return ""
    return "good" if value.low > 1 else "bad" if value.high < 1 else "unsure"


def time(at: datetime | None, *, both: bool = False) -> Markup:
    """A time in UTC, which the page's script shows in the reader's zone and as `5 min ago`.

    Args:
        at: The time; None: unknown.
        both: Whether the script shows the time as well as the relative words, not only when pointed at.
    """
    if at is None:
        return Markup('<span class="unknown">{}</span>').format(UNKNOWN)
    utc = at.astimezone(timezone.utc)
    return Markup('<time datetime="{}"{}>{}</time>').format(
        utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
        Markup(" data-both") if both else "",
        f"{utc:%Y-%m-%d %H:%M} UTC",
    )


def lasted(job: Job, now: datetime) -> str:
    """How long a job ran, or has run until now; empty: it has not started."""
    if job.started_at is None:
        return ""
    seconds = ((job.ended_at or now) - job.started_at) / timedelta(seconds=1)
    return format_duration(max(seconds, 1.0))


def job_name(job: Job) -> str:
    """What a job works on: its target, its models, or its repository."""
    if job.target:
        return job.target
    if models := job.models or tuple(result.model for result in job.results):
        return ", ".join(models[:3]) + (f" and {len(models) - 3} more" if len(models) > 3 else "")
    return (job.repository or "").rstrip("/").rpartition("/")[2] or "all models"


def options_text(options: Mapping[str, Any]) -> str:
    """Options as text of a job file; empty for none."""
    return yaml.safe_dump(dict(options), sort_keys=False, allow_unicode=True, width=100) if options else ""


def slo_of(options: Mapping[str, Any]) -> str:
    """The SLO of options in words: `p99 <= 40 ms`; empty: none, or not readable."""
    try:
        slo = SLO.model_validate(options.get("slo") or {})
    except ValidationError:
        return ""
    return str(slo) if slo.root else ""


def plural(count: int, noun: str, nouns: str = "") -> str:
    """A number with its noun: `1 job`, `3 jobs`, `2 queries`."""
    return f"{count:,} {noun if count == 1 else nouns or f'{noun}s'}"


FILTERS = {
    "interval": interval,
    "gain": gain,
    "gain_tone": gain_tone,
    "time": time,
    "job_name": job_name,
    "options_text": options_text,
    "in_symbols": in_symbols,
    "number": format_number,
    "ms": format_ms,
    "duration": format_duration,
    "plural": plural,
}
