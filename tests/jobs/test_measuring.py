from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.builders import point

from tuner.core.errors import InputError, SLOError
from tuner.core.loads import RequestRate
from tuner.jobs import measuring
from tuner.jobs.event_progress import EventProgress
from tuner.jobs.measuring import run_measurement
from tuner.measure.points import OperatingPoint
from tuner.options.measure_job import MeasureJob
from tuner.results.points_json import measured_point_json
from tuner.service.job_view import JobViews


def _points(folder: Path) -> tuple[bool, list[object]]:
    document = json.loads((folder / "points.json").read_text())
    return document["complete"], [each["load"] for each in document["points"]]


def _measures(monkeypatch: pytest.MonkeyPatch, *points: OperatingPoint, error: BaseException | None = None) -> None:
    """Measure these points, without a server."""

    @contextmanager
    def opened(*_: object) -> Iterator[tuple[str, object]]:
        yield "mlp", None

    def measured(*_: object) -> Iterator[OperatingPoint]:
        yield from points
        if error:
            raise error

    monkeypatch.setattr(measuring, "opened", opened)
    monkeypatch.setattr(measuring, "measured", measured)


def test_its_points_are_written_and_are_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _measures(monkeypatch, point(1, 100, 10), point(2, 180, 12))
    job = MeasureJob.make({"url": "h:1", "concurrency": "1,2"})
    with EventProgress.of_job(tmp_path, pytest.fail) as events:
        points = run_measurement(job, tmp_path / "run", events)
    document = json.loads((tmp_path / "run/points.json").read_text())
    assert document == {
        "schema": 1,
        "model": "mlp",
        "complete": True,
        "points": [json.loads(json.dumps(measured_point_json(each))) for each in points],
    }
    view = JobViews(lambda _: tmp_path).of(1)
    assert [(each.load, each.percentile) for each in view.front().points] == [
        ({"concurrency": 1}, "p99"),
        ({"concurrency": 2}, "p99"),
    ]
    assert list(view.artifacts) == ["run/points.json"]
    assert [line.text for line in view.lines if not line.text.startswith(("1", "2"))] == [
        "starting",
        "running",
        "measuring mlp: no SLO",
        "phase: measurement",
        "succeeded",
    ]


def test_what_was_measured_before_an_interruption_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _measures(monkeypatch, point(1), error=KeyboardInterrupt())
    job = MeasureJob.make({"url": "h:1"})
    with pytest.raises(KeyboardInterrupt), EventProgress.of_job(tmp_path, pytest.fail) as events:
        run_measurement(job, tmp_path, events)
    assert _points(tmp_path) == (False, [{"concurrency": 1}])


def test_a_search_that_finds_no_rate_has_points_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _measures(monkeypatch, point(RequestRate(50), 40, 100, kept_up=False))
    job = MeasureJob.make({"url": "h:1", "rate": "max"})
    with (
        pytest.raises(SLOError, match="the server sustained no tried rate"),
        EventProgress.of_job(tmp_path, pytest.fail) as events,
    ):
        run_measurement(job, tmp_path, events)
    assert _points(tmp_path) == (True, [{"request_rate": 50}])
    assert json.loads((tmp_path / "points.json").read_text())["highest_rate"] is None


def test_wrong_input_data_starts_nothing(tmp_path: Path) -> None:
    wrong = tmp_path / "inputs.json"
    wrong.write_text("no JSON")
    job = MeasureJob.make({"url": "h:1", "input_data": str(wrong)})
    with pytest.raises(InputError), EventProgress.of_job(tmp_path, pytest.fail) as events:
        run_measurement(job, tmp_path / "run", events)
    assert not (tmp_path / "run").exists()
