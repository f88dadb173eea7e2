"""Checks files of events: each line by the schema, and their numbers and states."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from support.pages import ROOT, blocks

SCHEMA: dict[str, Any] = json.loads((ROOT / "docs/reference/events.schema.json").read_text("utf-8"))
_VALIDATOR = Draft202012Validator(SCHEMA)


def events_in(folder: Path) -> list[dict[str, Any]]:
    """The events of a run or a job, each of which is as its schema says; no number is missing or repeated."""
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    for event in events:
        _VALIDATOR.validate(event)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["at"] for event in events] == sorted(event["at"] for event in events)
    return events


def states_in(events: Sequence[dict[str, Any]]) -> list[tuple[str, int, int | None]]:
    """The states, each with its attempt and exit code."""
    return [(each["state"], each["attempt"], each["exit_code"]) for each in events if each["type"] == "state"]


def of(events: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The events of a type."""
    return [event for event in events if event["type"] == kind]


def shown_events() -> list[str]:
    """The lines that the reference shows."""
    (block,) = (block for block in blocks() if "reference/events.md" in block.place and block.language == "json")
    return block.text.splitlines()
