"""What others read as JSON is JSON: null for what is not known, wherever it stands."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NoReturn

import pytest
from support.builders import identity, point, space, trial
from support.nights import night

from tuner.cli import measure as command
from tuner.cli.history import history
from tuner.core.errors import JobError
from tuner.core.json_text import json_text
from tuner.core.record import Interval
from tuner.measure.points import OperatingPoint
from tuner.nightly.history import History
from tuner.nightly.jobs import Notify
from tuner.nightly.notify import send_notifications
from tuner.nightly.outcome import NightReport
from tuner.options.measure_job import MeasureJob
from tuner.report.html.page import json_script
from tuner.results.result_files import write_results
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study

UNKNOWN = Interval(value=100.0, low=0.0, high=math.inf)


def _strictly(text: str) -> Any:
    """As every parser but Python's reads it."""

    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def vague() -> OperatingPoint:
    """A point of which next to nothing is known."""
    made = point(1, 100, 10)
    return made.model_copy(update={"throughput": UNKNOWN, "latency_ms": dict.fromkeys(made.latency_ms, UNKNOWN)})


def test_what_is_not_finite_is_null() -> None:
    data = {"a": [math.inf, -math.inf, (math.nan, 1.5)], "b": {"c": math.nan}, "d": 10**400, "e": None, "f": "x"}
    told = {"a": [None, None, [None, 1.5]], "b": {"c": None}, "d": 10**400, "e": None, "f": "x"}
    assert _strictly(json_text(data)) == told
    assert _strictly(json_text(data, indent=1)) == told
    assert _strictly(json_script(data["a"])) == told["a"]


def test_a_record_comes_back_as_it_was(vague: OperatingPoint) -> None:
    stored = vague.model_dump_json()
    _strictly(stored)
    assert OperatingPoint.model_validate_json(stored) == vague


def test_front_json(tmp_path: Path, vague: OperatingPoint) -> None:
    run, built = RunFolder(tmp_path), space()
    study = Study.create_or_resume(run.database, identity())
    study.add(trial(0, vague, parameters=built.baseline), built)
    write_results(run, Study.load(run.database, "mlp"))
    front = _strictly((run.model("mlp") / "front.json").read_text())
    assert front["baseline"][0]["throughput"] == {"value": 100.0, "low": 0.0, "high": None}


def test_measure(vague: OperatingPoint, capsys: pytest.CaptureFixture[str]) -> None:
    command._tell("m", [vague], MeasureJob.make({"url": "h:1"}), as_json=True, csv=None, complete=True)
    (told,) = _strictly(capsys.readouterr().out)["points"]
    assert told["latency_ms"]["p99"]["high"] is None


def test_a_night(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = night(gain=UNKNOWN)
    report = NightReport.of("2026-01-01T00:00:00+00:00", (one,), notes=(), duration_s=math.inf)
    assert not list(send_notifications(report, [Notify(file=tmp_path / "told.jsonl")]))
    assert _strictly((tmp_path / "told.jsonl").read_text())["jobs"][0]["gain"]["high"] is None
    place = str(tmp_path / "history.db")
    with History.opened(place) as stored:
        stored.add(one)
    history(place, (), 3, as_json=True)
    assert _strictly(capsys.readouterr().out)["nights"][0]["gain"]["high"] is None


def test_what_goes_wrong_with_telling_hides_no_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], vague: OperatingPoint
) -> None:
    def measured(*_: object) -> Any:
        yield vague
        raise JobError("the error")

    def opened(*_: object) -> Any:
        return _Opened()

    monkeypatch.setattr(command, "_measured", measured)
    monkeypatch.setattr(command, "_opened", opened)
    csv = tmp_path / "points.csv"
    monkeypatch.setattr(command, "check_output", lambda file, **_: file.mkdir())
    with pytest.raises(JobError, match="^the error$"):
        command.measure({"url": "h:1"}, as_json=True, csv=csv)
    told = capsys.readouterr()
    assert _strictly(told.out)["model"] == "m"
    assert f"cannot write the result: --csv: cannot write {csv}: Is a directory" in told.err


class _Opened:
    def __enter__(self) -> tuple[str, None]:
        return "m", None

    def __exit__(self, *_: object) -> None:
        pass
