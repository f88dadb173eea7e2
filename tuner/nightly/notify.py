"""Tells those who want to know how the night went. Whoever cannot be told changes nothing about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tuner.core.json_text import json_text
from tuner.nightly.jobs import Notify
from tuner.nightly.outcome import NightReport
from tuner.nightly.web import WebError, post


def tell(report: NightReport, whom: Sequence[Notify]) -> Iterator[str]:
    """Tell each of them. Yields a line for each that could not be told, without secrets."""
    for each in whom:
        try:
            _tell(report, each)
        except WebError as error:
            yield f"notification failed: {error}"
        except OSError as error:
            yield f"notification failed: {each.file}: {error.strerror}"


def _tell(report: NightReport, whom: Notify) -> None:
    if whom.webhook:
        post(whom.webhook.get_secret_value(), report_json(report))
    elif whom.slack:
        text = f"tritontune: {report.outcome}: {report.summary}"
        post(whom.slack.get_secret_value(), {"text": _for_slack(text)})
    elif whom.file:
        whom.file.parent.mkdir(parents=True, exist_ok=True)
        with whom.file.open("a", encoding="utf-8") as file:
            file.write(json_text(report_json(report)) + "\n")


def report_json(report: NightReport) -> dict[str, Any]:
    """The report as JSON says it."""
    return report.model_dump(mode="json", by_alias=True)


def _for_slack(text: str) -> str:
    """One line, in which Slack sees no links and no mentions."""
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
