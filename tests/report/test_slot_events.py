from __future__ import annotations

import io
from datetime import datetime, timezone
from typing import Any

import pytest
from rich.console import Console
from support.builders import point

from tuner.cli import followed_job
from tuner.client.event_lines import EventLines
from tuner.core.objectives import THROUGHPUT
from tuner.jobs.event_words import EventWords
from tuner.jobs.events import (
    HostChanged,
    ModelBegan,
    Numbered,
    PointMeasured,
    SlotChanged,
    StateChanged,
    TrialBegan,
    TrialDropped,
    TrialEnded,
    WorkRequeued,
)
from tuner.report.slot_events import show_event
from tuner.report.slot_lines import SlotLines
from tuner.results.points_json import judged_point_json

_AT = datetime(2026, 11, 30, tzinfo=timezone.utc)
_POINT = judged_point_json(point(8, 400, 20), THROUGHPUT)
_TUNED = {"model": "m", "slo": "p99 <= 25 ms", "percentile": "p99", "objective": "throughput", "budget_s": 600.0}
_ENDED = {"model": "m", "candidate": "count 2", "parameters": {}, "points": (), "wall_s": 6.0}


def _began(trial: int, slot: str) -> tuple[type[Numbered], dict[str, Any]]:
    return TrialBegan, {"model": "m", "trial": trial, "candidate": f"count {trial}", "slot": slot}


def test_the_events_of_a_job_tell_what_its_slots_do() -> None:
    slots, words, seq = SlotLines(), EventWords(), 0

    def shown(*events: tuple[type[Numbered], dict[str, Any]]) -> list[str]:
        nonlocal seq
        for kind, fields in events:
            seq += 1
            event: Any = kind(seq=seq, at=_AT, **fields)
            words.line(event)
            show_event(slots, event, words)
        return [line.plain.strip() for line in slots.lines(10)]

    assert shown((ModelBegan, _TUNED), _began(0, ""), (TrialEnded, {**_ENDED, "trial": 0})) == []
    assert shown(_began(1, "a/0"), _began(2, "b/0"), (SlotChanged, {"slot": "b/1", "work": "round 1 of trial 0"})) == [
        "a/0  trial 1: launching; count 1",
        "b/0  trial 2: launching; count 2",
        "b/1  round 1 of trial 0",
    ]
    assert shown(
        (PointMeasured, {"model": "m", "trial": 1, "point": _POINT}), (SlotChanged, {"slot": "b/1", "work": None})
    ) == [
        "a/0  trial 1: 400 inferences/s, p99 20 ms at concurrency 8; count 1",
        "b/0  trial 2: launching; count 2",
    ]
    lost = {"host": "b", "event": "lost", "reason": "its node died"}
    again = {"trial": 2, "work": "trial 2", "slot": "b/0", "reason": "its node died"}
    assert len(shown((HostChanged, lost), (WorkRequeued, again))) == 1
    assert shown((TrialEnded, {**_ENDED, "trial": 1}), _began(2, "a/0")) == ["a/0  trial 2: launching; count 2"]
    assert shown((TrialDropped, {"model": "m", "trial": 2, "reason": "lost twice"})) == []
    assert shown(_began(3, "a/0"), (StateChanged, {"state": "succeeded"})) == []


@pytest.mark.parametrize("terminal", [False, True])
def test_a_followed_job_shows_its_slots_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, terminal: bool
) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100, color_system=None)
    monkeypatch.setattr(followed_job, "Console", lambda **_: console)
    lines = EventLines(1)
    events: list[tuple[type[Numbered], dict[str, Any]]] = [
        _began(0, ""),
        _began(1, "a/0"),
        (TrialEnded, {**_ENDED, "trial": 1}),
    ]
    with followed_job._Screen() as screen:
        for seq, (kind, fields) in enumerate(events, 1):
            event: Any = kind(seq=seq, at=_AT, **fields)
            screen.show(lines.of(event), event, lines.words)
    told = capsys.readouterr().err + file.getvalue()
    assert "trial 1: count 2: no operating point (6s)\n" in told
    assert ("a/0  trial 1: launching; count 1" in told) == terminal
