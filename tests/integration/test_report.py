"""`report.html` of a run on a real Triton, and `tritontune report`."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.command_line import await_that, start_tritontune, tritontune

pytestmark = pytest.mark.usefixtures("fake_on_path")


def _text(page: Path) -> str:
    """The page without its scripts, of which most is Plotly's."""
    return re.sub(r"<script>.*?</script>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_a_run_ends_with_its_report(finished_run: Path) -> None:
    assert f"report:   {finished_run / 'report.html'}" in (finished_run.parent / "stdout.txt").read_text()
    text = _text(finished_run / "report.html")
    assert "the baseline&#39;s throughput" in text
    assert "p90 ≤ 400 ms" in text
    repository = finished_run.parent / "model_repository"
    assert f"tritontune run {repository} --seed 7 --slo p90=400ms --budget 9m --trials 3 --max-concurrency 8" in text
    assert "as a process" in text
    assert "not known: an older version" not in text


def test_it_is_written_anew_from_the_stored_study_alone(finished_run: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = tritontune("report", finished_run, "--out", page)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"{page}: written\n")
    assert _text(page) == _text(finished_run / "report.html")


@pytest.fixture
def underway(slow_model: Path, tmp_path: Path) -> Iterator[tuple[Any, Path]]:
    """A run that has measured its baseline and goes on."""
    out = tmp_path / "run"
    run = start_tritontune("run", slow_model, "--max-concurrency", 2, "--precision", "20%,50%", "--out", out)
    try:
        await_that(lambda: (out / "slow/trials/001/command.txt").exists() or run.poll() is not None, within_s=60)
        yield run, out
    finally:
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=120)


def test_while_a_run_is_on(underway: tuple[Any, Path]) -> None:
    run, out = underway
    done = tritontune("report", out)
    assert done.returncode == 0, done.stderr
    text = _text(out / "report.html")
    assert "the run was still going on when this report was written" in text
    assert re.search(r"\d trials, \d+ operating points", text)
    assert run.poll() is None
