"""The events of a finished run; those of killed and interrupted ones are in `test_run.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.command_line import tritontune
from support.event_files import events_in, of, shown_events, states_in

from tuner.service.job_view import JobViews
from tuner.study.study import Study

pytestmark = pytest.mark.usefixtures("fake_on_path")


@pytest.fixture
def events(finished_run: Path) -> list[dict[str, Any]]:
    return events_in(finished_run)


def test_the_states_of_a_run_end_with_its_exit_code(events: list[dict[str, Any]]) -> None:
    assert states_in(events) == [("starting", 1, None), ("running", 1, None), ("succeeded", 1, 0)]
    assert events[-1]["type"] == "state"


def test_the_phases_come_in_order(events: list[dict[str, Any]]) -> None:
    phases = [event["phase"] for event in of(events, "phase") if event["phase"] != "warm-up"]
    assert phases == ["baseline", "search", "verification", "certification", "report"]


def test_each_trial_begins_has_its_points_and_ends(finished_run: Path, events: list[dict[str, Any]]) -> None:
    study = Study.load(finished_run / "study.db", "slow")
    assert [event["trial"] for event in of(events, "trial_began")] == [trial.number for trial in study.trials]
    for trial, ended in zip(study.trials, of(events, "trial_ended"), strict=True):
        assert (ended["trial"], ended["parameters"]) == (trial.number, dict(trial.parameters))
        measured = [event["point"] for event in of(events, "point") if event["trial"] == trial.number]
        assert sorted(measured, key=lambda point: point["load"]["concurrency"]) == ended["points"]
        assert [point["load"]["concurrency"] for point in ended["points"]] == [
            point.load.level for point in trial.curve
        ]
    # The baseline came before the first candidate's beginning, and so on.
    order = [event["type"] for event in events if event["type"] in {"trial_began", "trial_ended"}]
    assert order == ["trial_began", "trial_ended"] * len(study.trials)


def test_what_the_events_tell_is_the_result(finished_run: Path, events: list[dict[str, Any]]) -> None:
    front = json.loads((finished_run / "slow/front.json").read_text())
    view = JobViews(lambda _: finished_run).of(1)
    told = [
        (each.trial, each.load, each.throughput.value, each.verified) for each in view.front().points if each.on_front
    ]
    written = sorted(front["front"], key=lambda each: each["throughput"]["value"])
    assert told == [(each["trial"], each["load"], each["throughput"]["value"], each["verified"]) for each in written]
    (result,) = view.results
    best = front["best"]
    assert (result.trial, result.load, result.verified) == (best["trial"], best["load"], best["verified"])
    assert result.throughput is not None
    assert result.throughput.value == pytest.approx(best["throughput"]["value"], rel=1e-4)
    assert [each.load for each in view.front().points if each.best] == [best["load"]]
    (ended,) = of(events, "model_ended")
    assert ended["result"]["ended"] == "all 3 trials are done"
    assert view.progress.points == sum(len(trial["points"]) for trial in of(events, "trial_ended")) + sum(
        event["load"] not in [point["load"] for point in of(events, "trial_ended")[event["trial"]]["points"]]
        for event in {json.dumps([each["trial"], each["load"]]): each for each in of(events, "verified")}.values()
    )


def test_the_written_files_are_there(finished_run: Path, events: list[dict[str, Any]]) -> None:
    paths = [event["path"] for event in of(events, "artifact")]
    assert {"slow/front.json", "slow/trials.csv", "slow/best/config.pbtxt", "report.html"} <= set(paths)
    assert all((finished_run / path).is_file() for path in paths)


def _fits(shown: object, written: object) -> bool:
    """Whether two values are of the same kind, down to the keys; an unknown value is of any kind."""
    if isinstance(shown, dict) and isinstance(written, dict):
        return shown.keys() == written.keys() and all(_fits(shown[name], written[name]) for name in shown)
    if isinstance(shown, list) and isinstance(written, list):
        return all(_fits(shown[0], each) for each in written) if shown else True
    numbers = (int, float)
    return (
        shown is None
        or written is None
        or type(shown) is type(written)
        or (isinstance(shown, numbers) and isinstance(written, numbers))
    )


def test_the_events_of_the_reference_are_as_those_of_a_run(events: list[dict[str, Any]]) -> None:
    for line in shown_events():
        shown = json.loads(line)
        of_its_type = of(events, shown["type"])
        assert of_its_type
        assert all(_fits(shown, written) for written in of_its_type), line


def test_a_folder_with_events_alone_is_no_run(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "events.jsonl").write_text("")
    done = tritontune("report", out)
    assert (done.returncode, "not a run folder (it has no study.db)" in done.stderr) == (2, True)
