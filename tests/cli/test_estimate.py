"""`tritontune estimate`, from a study that needed no Triton."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.builders import SMALL_SPACE, identity, space
from support.known_truth import Truth

from tuner.cli.estimate import estimate
from tuner.core.errors import JobError
from tuner.search.twin_sampler import calibrations
from tuner.space.spec import parse_space
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study

TRUTH = Truth(fixed_ms=5.0, item_ms=0.2, neighbour=0.3)


def _study(run: Path, model: str, *, launches: int = 3) -> None:
    built = space(SMALL_SPACE)
    spec = parse_space(SMALL_SPACE, "test.yaml").model_dump_json(by_alias=True)
    study = Study.create_or_resume(RunFolder(run).database, identity(model=model, space=spec))
    for number, assignment in enumerate([built.baseline, *calibrations(built)][:launches]):
        study.add(TRUTH.trial(built, number, assignment), built)


def test_it_fits_eighty_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _study(tmp_path, "mlp")
    estimate(tmp_path, None, "8000", ("p99=40ms",), as_json=False)
    told = capsys.readouterr()
    assert not told.err
    first, *lines, last = told.out.splitlines()
    assert first.startswith("8,000 requests/s within p99 <= 40 ms: ")
    heading = next(line for line in lines if "hosts" in line)
    assert heading.split() == ["hosts", "instances", "requests/s", "p99", "ms"]
    above = lines[lines.index(heading) - 1]
    assert above.split() == ["a", "host", "holds", "up", "to", "at", "its", "share"]
    table = lines[: lines.index("", lines.index(heading))]
    assert max(map(len, table)) <= 80
    assert "…" not in "".join(table)
    assert next(line.split(":")[0] for line in lines if line.startswith("  ") and ":" in line) == "  1"
    assert "95 % intervals" in last


def test_many_hosts_are_readable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _study(tmp_path, "mlp", launches=1)
    estimate(tmp_path, None, "8e5", ("p99=12ms",), as_json=False)
    told = capsys.readouterr().out
    assert re.match(r"800,000 requests/s within p99 <= 12 ms: \d+,\d{3} hosts \([\d,]+ to \d+,\d{3}\) with ", told)


def test_the_config_as_it_is_is_called_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _study(tmp_path, "mlp", launches=1)
    estimate(tmp_path, None, "800", ("p99=6ms",), as_json=False)
    assert "(trial 0, the baseline)" in capsys.readouterr().out


def test_that_no_number_of_hosts_may_be_enough_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _study(tmp_path, "mlp", launches=1)
    estimate(tmp_path, None, "800", ("p99=6ms",), as_json=False)
    told = capsys.readouterr().out
    assert re.match(r"800 requests/s within p99 <= 6 ms: [\d,]+ hosts? \([\d,]+ to \?\) with ", told)
    assert told.endswith("?: this config may not hold p99 <= 6 ms at any rate.\n")
    estimate(tmp_path, None, "800", ("p99=6ms",), as_json=True)
    best = json.loads(capsys.readouterr().out)["configs"][0]
    assert (best["hosts"]["high"], best["request_rate_a_host"]["low"]) == (None, 0.0)


def test_it_says_how_far_it_goes_beyond_what_was_launched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _study(tmp_path, "mlp", launches=2)
    estimate(tmp_path, None, "8000", ("p99=40ms",), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    beyond = [line for line in lines if "2 instances (at most 1 launched): launch one to be sure" in line]
    assert beyond
    assert all("instance_group.count 2 (simulated, " in line for line in beyond)


def test_what_cannot_be_estimated_from_is_one_clear_line(tmp_path: Path) -> None:
    _study(tmp_path, "mlp")
    _study(tmp_path, "resnet", launches=0)
    with pytest.raises(JobError, match=r"holds several models; choose one with --model: mlp, resnet$"):
        estimate(tmp_path, None, "10", ("p99=40ms",), as_json=True)
    with pytest.raises(JobError, match=r"holds no study of model 'resmet'; did you mean 'resnet'\?$"):
        estimate(tmp_path, "resmet", "10", ("p99=40ms",), as_json=True)
    with pytest.raises(JobError, match=r"no trial of model 'resnet' has finished yet$"):
        estimate(tmp_path, "resnet", "10", ("p99=40ms",), as_json=True)
