from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.builders import interval
from support.nights import measured, night

from tuner.cli.history import history, plotted
from tuner.core.errors import JobError
from tuner.core.quantities import format_number
from tuner.nightly.history import History


@pytest.fixture
def place(tmp_path: Path) -> str:
    path = str(tmp_path / "history.db")
    with History.opened(path) as stored:
        stored.add(
            night(1, gain=interval(2.0), outcome="improved", candidate=measured(200.0), candidate_config="f" * 64)
        )
        stored.add(night(2, outcome="failed", reason="model [bold] does not work", deployed=None, conditions=None))
        stored.add(night(3, outcome="regression", regression=True, drift="slower: -30%"))
        stored.add(night(3, model="other"))
    return path


def test_a_table_and_bars(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    history(place, ("mlp",), 30, as_json=False)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == "mlp of /models"
    assert lines[2].split() == ["night", "outcome", "inferences/s", "latency", "concurrency", "gain", "took", "why"]
    assert "2.00 (1.96 to 2.04)" in lines[3]
    assert lines[3].startswith("2026-01-01 03:00  improved")
    assert "model [bold] does not work" in lines[4]
    assert "slower: -30%" in lines[5]
    assert lines[6:] == ["inferences/s  █ ▁  100 to 200", "         p99  ▅ ▅  10 ms", "        gain  ▅    2.00"]


def test_each_model_has_its_own(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    history(place, (), 1, as_json=False)
    out = capsys.readouterr().out
    assert "mlp of /models" in out
    assert "other of /models" in out
    assert "2026-01-01" not in out


def test_for_machines(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    history(place, (), 30, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == 1
    assert [each["outcome"] for each in told["nights"]] == ["improved", "failed", "regression", "kept"]
    assert told["nights"][0]["gain"] == {"value": 2.0, "low": 1.96, "high": 2.04}
    assert told["nights"][0]["candidate"]["doubts"] == []


def test_bad_input(place: str, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="has no model 'mpl'; did you mean 'mlp'"):
        history(place, ("mpl",), 30, as_json=False)
    with pytest.raises(JobError, match="no such file .*nothing.db; `tritontune nightly JOBS.yaml` creates it"):
        history(str(tmp_path / "nothing.db"), (), 30, as_json=False)
    assert not (tmp_path / "nothing.db").exists()


def test_bars() -> None:
    assert plotted([], format_number) == ""
    assert plotted([None], format_number) == ""
    assert plotted([1.0, None, 2.0, 3.0], format_number) == "▁ ▅█  1 to 3"
    assert plotted([2.0, 2.0], format_number) == "▅▅  2"


def test_latency_is_at_the_percentile_of_the_slo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with History.opened(str(tmp_path / "history.db")) as stored:
        stored.add(night(1))
        stored.add(night(2, deployed=measured(percentile="p95", latency_ms={"p95": interval(8.0)})))
    history(str(tmp_path / "history.db"), (), 30, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert "p99 10 ms" in lines[3]
    assert "p95 8 ms" in lines[4]
    assert lines[6].split() == ["p95", "▅", "8", "ms"]
