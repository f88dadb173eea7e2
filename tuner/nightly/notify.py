"""Sends the notifications of a night. A failed notification is listed in the report, and changes nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tuner.core.json_text import json_text
from tuner.nightly.jobs import Notify
from tuner.nightly.outcome import NightReport
from tuner.nightly.web import WebError, post


def send_notifications(report: NightReport, targets: Sequence[Notify]) -> Iterator[str]:
    """Send all notifications. Yields a message, without secrets, for each that failed."""
    for target in targets:
        try:
            _send(report, target)
        except WebError as error:
            yield f"notification failed: {error}"
        except OSError as error:
            yield f"notification failed: {target.file}: {error.strerror}"


def _send(report: NightReport, target: Notify) -> None:
    if target.webhook:
        post(target.webhook.get_secret_value(), report_json(report))
    elif target.slack:
        text = f"tritontune: {report.outcome}: {report.summary}"
        post(target.slack.get_secret_value(), {"text": _for_slack(text)})
    elif target.file:
        target.file.parent.mkdir(parents=True, exist_ok=True)
        with target.file.open("a", encoding="utf-8") as file:
            file.write(json_text(report_json(report)) + "\n")


def report_json(report: NightReport) -> dict[str, Any]:
    """The report as JSON data; see `NightReport`."""
    return report.model_dump(mode="json")


def _for_slack(text: str) -> str:
    """A text as one line, with Slack's control characters escaped, so that it contains no links and mentions."""
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
