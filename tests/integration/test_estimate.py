"""`tritontune estimate`, from a finished run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.command_line import tritontune

pytestmark = pytest.mark.usefixtures("fake_on_path")


def test_it_says_what_holds_a_load(finished_run: Path) -> None:
    done = tritontune("estimate", finished_run, "--rate", "800", "--slo", "p99=60ms")
    assert done.returncode == 0, done.stderr
    first = done.stdout.strip().splitlines()[0]
    assert first.startswith("800 requests/s within p99 <= 60 ms: ")
    assert "host" in first
    assert "Poisson arrivals" in done.stdout


def test_json_for_machines(finished_run: Path) -> None:
    done = tritontune("estimate", finished_run, "--rate", "20", "--slo", "p99=80ms", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["schema"], told["model"], told["request_rate"], told["slo"]) == (1, "slow", 20.0, {"p99_ms": 80.0})
    best = told["configs"][0]
    assert best["hosts"]["value"] == 1
    assert best["request_rate_a_host"]["low"] <= best["request_rate_a_host"]["value"]
    assert best["latency_ms"]["p99"]["value"] <= 80


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--rate", "many"), 2, "--rate: must be a number > 0 and <= 10,000,000 (requests/s), got 'many'"),
        (("--rate", "-5"), 2, "--rate: must be a number > 0 and <= 10,000,000 (requests/s), got '-5'"),
        (("--rate", "1e12"), 2, "--rate: must be a number > 0 and <= 10,000,000 (requests/s), got '1e12'"),
        (("--rate", "10", "--slo", "p99"), 2, "--slo: "),
        (("--rate", "10", "--slo", "p99=0.1ms"), 3, "is expected to hold p99 <= 0.1 ms at any rate"),
        (("--rate", "10", "--model", "slou"), 2, "holds no study of model 'slou'; did you mean 'slow'?"),
        ((), 2, "--rate is missing; see tritontune estimate --help"),
    ],
)
def test_bad_input_is_one_line(finished_run: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    done = tritontune("estimate", finished_run, *arguments)
    assert done.returncode == code
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    done = tritontune("estimate", tmp_path, "--rate", "10", "--slo", "p99=10ms")
    assert done.returncode == 2
    assert str(tmp_path) in done.stderr
