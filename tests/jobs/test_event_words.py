from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timezone
from typing import Any, get_args

import pytest
from support.builders import interval, point

from tuner.core.loads import Ramp, RequestRate
from tuner.core.objectives import THROUGHPUT
from tuner.jobs.event_words import EventWords
from tuner.jobs.events import (
    EVENT,
    ArtifactWritten,
    BestChanged,
    Event,
    FinalistEliminated,
    HostChanged,
    ModelBegan,
    ModelEnded,
    ModelResult,
    NightEnded,
    Noted,
    Numbered,
    PhaseBegan,
    PointMeasured,
    PointVerified,
    SlotChanged,
    StateChanged,
    TrialBegan,
    TrialDropped,
    TrialEnded,
    WorkRequeued,
)
from tuner.results.points_json import judged_point_json

_AT = datetime(2026, 11, 30, tzinfo=timezone.utc)
_POINT = judged_point_json(point(8, 400, 20), THROUGHPUT)
_SLOWER = judged_point_json(point(1, 90, 12), THROUGHPUT)
_RATE = judged_point_json(point(RequestRate(500), 450, 120), THROUGHPUT)
_RAMP = judged_point_json(point(Ramp(10, 200, 5.0), 100, 12), THROUGHPUT)
_BEST = ModelResult(model="m", trial=3, throughput=interval(400), latency_ms=interval(20), percentile="p99")
_TUNED = {"model": "m", "slo": "p99 <= 25 ms", "percentile": "p99", "objective": "throughput", "budget_s": 600.0}
_ENDED = {"model": "m", "trial": 3, "candidate": "count 2", "parameters": {}, "points": (), "wall_s": 6.0}

_ON_A_SLOT = "trial 3 begins on w2/gpu:0: count 2"

_CASES: list[tuple[type[Numbered], dict[str, Any], str]] = [
    (StateChanged, {"state": "starting"}, "starting"),
    (
        StateChanged,
        {"state": "starting", "attempt": 2, "reason": "its process was lost"},
        "starting (attempt 2): its process was lost",
    ),
    (PhaseBegan, {"phase": "search", "model": "m"}, "phase: search"),
    (Noted, {"text": "hello"}, "hello"),
    (ModelBegan, _TUNED, "tuning m: throughput, SLO p99 <= 25 ms, budget 10m00s"),
    (ModelBegan, {**_TUNED, "slo": "", "budget_s": None}, "measuring m: no SLO"),
    (TrialBegan, {"model": "m", "trial": 3, "candidate": "count 2"}, "trial 3 begins: count 2"),
    (TrialBegan, {"model": "m", "trial": 3, "candidate": "count 2", "slot": "w2/gpu:0"}, _ON_A_SLOT),
    (TrialDropped, {"model": "m", "trial": 3, "reason": "lost twice"}, "trial 3 does not count: lost twice"),
    (SlotChanged, {"slot": "w2/gpu:0", "work": "round 2 of trial 3"}, "w2/gpu:0: round 2 of trial 3"),
    (SlotChanged, {"slot": "w2/gpu:0", "work": None}, ""),
    (
        WorkRequeued,
        {"trial": 3, "work": "trial 3", "slot": "w2/gpu:0", "reason": "its node died"},
        "trial 3 starts again on another host: w2/gpu:0 was lost (its node died)",
    ),
    (HostChanged, {"host": "w2", "event": "lost", "reason": "its node died"}, "host w2 was lost: its node died"),
    (PointMeasured, {"model": "m", "trial": 3, "point": _POINT}, ""),
    (
        PointMeasured,
        {"model": "m", "trial": None, "point": _POINT},
        "400 inferences/s, p99 20 ms at concurrency 8",
    ),
    (
        PointMeasured,
        {"model": "m", "trial": None, "point": _RATE},
        "450 inferences/s, p99 120 ms at 500 requests/s",
    ),
    (
        PointMeasured,
        {"model": "m", "trial": None, "point": _RAMP},
        "100 inferences/s, p99 12 ms at 10 to 200 requests/s",
    ),
    (
        TrialEnded,
        {**_ENDED, "points": (_SLOWER, _POINT)},
        "trial 3: count 2: up to 400 inferences/s, p99 20 ms at concurrency 8 (6s)",
    ),
    (TrialEnded, {**_ENDED, "host": "w2"}, "trial 3 on w2: count 2: no operating point (6s)"),
    (TrialEnded, _ENDED, "trial 3: count 2: no operating point (6s)"),
    (TrialEnded, {**_ENDED, "failure": "gone", "cause": "crashed"}, "trial 3: count 2: crashed: gone (6s)"),
    (
        PointVerified,
        {"model": "m", "trial": 3, "load": {"concurrency": 8}, "rounds": 2, "point": _POINT},
        "trial 3 relaunched: 400 inferences/s, p99 20 ms at concurrency 8, 2 launches",
    ),
    (PointVerified, {"model": "m", "trial": 3, "load": {"concurrency": 8}, "rounds": 0, "point": None}, ""),
    (
        FinalistEliminated,
        {"model": "m", "trial": 3, "load": {"request_rate": 200.0}, "reason": "failed"},
        "eliminated trial 3 at 200 requests/s: failed",
    ),
    (BestChanged, {"model": "m", "best": _BEST}, "best so far: 400/s, p99 20 ms (trial 3)"),
    (
        BestChanged,
        {"model": "m", "best": _BEST.model_copy(update={"gain": interval(1.5)})},
        "best so far: 400/s, p99 20 ms, 1.50 x (trial 3)",
    ),
    (
        BestChanged,
        {"model": "m", "best": ModelResult(model="m", trial=None)},
        "best so far: no candidate holds the SLO",
    ),
    (ModelEnded, {"model": "m", "result": _BEST.model_copy(update={"ended": "done"})}, "m: done"),
    (ModelEnded, {"model": "m", "result": _BEST.model_copy(update={"failure": "no weights"})}, "m: no weights"),
    (NightEnded, {"model": "m", "night": {"outcome": "kept", "reason": "nothing better"}}, "m: kept: nothing better"),
    (ArtifactWritten, {"path": "report.html"}, ""),
]


@pytest.mark.parametrize(("kind", "fields", "line"), _CASES)
def test_an_event_is_a_line(kind: type[Any], fields: dict[str, Any], line: str) -> None:
    assert EventWords().line(kind(seq=1, at=_AT, **fields)) == line


def test_every_type_of_event_is_a_case() -> None:
    assert {kind for kind, _, _ in _CASES} == set(get_args(get_args(Event)[0]))


def test_events_of_early_versions_are_read() -> None:
    """They lack what was added for several slots and hosts."""
    first = {"seq": 1, "at": _AT.isoformat(), "version": 1}
    began = EVENT.validate_python({**first, "type": "trial_began", "model": "m", "trial": 0, "candidate": "count 2"})
    ended = EVENT.validate_python({**first, "type": "trial_ended", **_ENDED})
    assert isinstance(began, TrialBegan)
    assert isinstance(ended, TrialEnded)
    assert (began.slot, ended.host) == ("", "")


def test_latencies_are_those_of_the_models_percentile() -> None:
    words = EventWords()
    words.line(ModelBegan(seq=1, at=_AT, **{**_TUNED, "percentile": "p50"}))
    measured = PointMeasured(seq=2, at=_AT, model="m", trial=None, point=_POINT)
    assert words.line(measured) == "400 inferences/s, p50 10 ms at concurrency 8"


def test_who_only_reads_events_loads_nothing_heavy() -> None:
    """The commands of the service's users start in a fraction of a second."""
    heavy = {"optuna", "numpy", "grpc"}
    code = f"import sys, tuner.jobs.event_words, tuner.jobs.event_log; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"
