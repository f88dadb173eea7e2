"""`tritontune export`, from a finished run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command_line import tritontune

from tuner.config.config import ModelConfig

pytestmark = pytest.mark.usefixtures("fake_on_path")


@pytest.fixture
def deployed(finished_run: Path) -> Iterator[Path]:
    """The config.pbtxt of the repository that the finished run tuned; put back as it was in the end."""
    path = finished_run.parent / "model_repository/slow/config.pbtxt"
    before = path.read_bytes()
    yield path
    for other in path.parent.glob("config.pbtxt*"):
        other.unlink()
    path.write_bytes(before)


def _best(run: Path) -> str:
    return (run / "slow/best/config.pbtxt").read_text()


def test_to_stdout(finished_run: Path) -> None:
    done = tritontune("export", finished_run)
    assert (done.returncode, done.stdout) == (0, _best(finished_run))


def test_to_a_file(finished_run: Path, tmp_path: Path) -> None:
    done = tritontune("export", finished_run, "--to", tmp_path / "slow.pbtxt")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "slow.pbtxt").read_text() == _best(finished_run)


def test_to_a_folder(finished_run: Path, tmp_path: Path) -> None:
    done = tritontune("export", finished_run, "--to", tmp_path / "deploy")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "deploy/slow/config.pbtxt").read_text() == _best(finished_run)
    assert (tmp_path / "deploy/slow/1/model.py").is_file()
    again = tritontune("export", finished_run, "--to", tmp_path / "deploy")
    assert again.returncode == 2
    assert "exists already" in again.stderr


def test_in_place_keeps_a_backup(finished_run: Path, deployed: Path) -> None:
    before = deployed.read_text()
    done = tritontune("export", finished_run, "--in-place")
    assert done.returncode == 0, done.stderr
    assert deployed.read_text() == _best(finished_run)
    (backup,) = deployed.parent.glob("config.pbtxt.bak-*")
    assert backup.read_text() == before
    assert backup.name in done.stderr


def test_in_place_refuses_a_file_that_has_changed(finished_run: Path, deployed: Path) -> None:
    deployed.write_text(deployed.read_text() + "# a hand was here\n")
    done = tritontune("export", finished_run, "--in-place")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert deployed.read_text().endswith("# a hand was here\n")


def test_another_slo_picks_another_point(finished_run: Path) -> None:
    front = json.loads((finished_run / "slow/front.json").read_text())["front"]
    quickest = front[0]["latency_ms"]["p90"]["value"]
    done = tritontune("export", finished_run, "--slo", f"p90={quickest * 1.001:.3f}ms")
    assert done.returncode == 0, done.stderr
    assert f"trial {front[0]['trial']} of 3" in done.stdout
    assert f"SLO: p90 <= {float(f'{quickest * 1.001:.3f}'):g} ms" in done.stdout
    assert ModelConfig.parse(done.stdout, "exported").proto.backend == "python"


def test_a_slo_that_nothing_holds(finished_run: Path) -> None:
    done = tritontune("export", finished_run, "--slo", "p99=1us")
    assert done.returncode == 3
    assert done.stderr == "tritontune: no measured candidate of model 'slow' holds p99 <= 0.001 ms\n"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--model", "slwo"], "did you mean 'slow'?"),
        (["--to", "x", "--in-place"], "use either --to or --in-place, not both"),
        (["--slo", "p99=x"], "--slo: 'x' is not a duration"),
        (["--to", "/proc/nowhere/x.pbtxt"], "--to: no such folder /proc/nowhere"),
    ],
)
def test_bad_input(finished_run: Path, options: list[str], complaint: str) -> None:
    done = tritontune("export", finished_run, *options)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert complaint in line
