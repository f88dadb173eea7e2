"""The report of a night, and its exit code."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tuner.core.record import Record
from tuner.nightly.history import Night

Outcome = Literal["kept", "improved", "regression", "failed"]

EXIT_CODES: dict[str, int] = {"kept": 0, "improved": 10, "regression": 20, "failed": 1}
"""Exit code by outcome, in ascending order of severity."""


class NightReport(Record):
    """The report of a night: the contents of `report.json`, of `--json`, and of the webhook's request.

    Attributes:
        night: When the night began, ISO 8601 in UTC.
        outcome: The worst outcome of any model.
        exit_code: The exit code of that outcome.
        summary: The results of all models in one line.
        duration_s: Duration of the whole night, in seconds.
        jobs: The result of each model, in the order of the job file.
        notes: Further messages, such as skipped models and failed notifications.
    """

    version: int = Field(default=1, serialization_alias="schema")
    night: str
    outcome: Outcome
    exit_code: int
    summary: str
    duration_s: float
    jobs: tuple[Night, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, night: str, jobs: tuple[Night, ...], *, notes: tuple[str, ...], duration_s: float) -> NightReport:
        """Make the report from the results of the models."""
        order = list(EXIT_CODES)
        worst = max((job.outcome for job in jobs), key=order.index, default="kept")
        return cls.model_validate(
            {
                "night": night,
                "outcome": worst,
                "exit_code": EXIT_CODES[worst],
                "summary": "; ".join(in_words(job) for job in jobs),
                "duration_s": round(duration_s, 1),
                "jobs": jobs,
                "notes": notes,
            }
        )


def in_words(job: Night) -> str:
    """One model's result in a line: `mlp: improved: 1.30 x the throughput ...; config.pbtxt replaced`."""
    parts = [job.drift] if job.regression else []
    parts += [job.reason] if job.reason and not (job.outcome == "regression" and not job.action) else []
    parts += [job.action] if job.action else []
    return f"{job.model}: {job.outcome}: {'; '.join(parts)}"
