"""`tritontune run` with the objectives that need no GPU; `test_gpu.py` has the others."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from support.command_line import servers_of, tritontune

from tuner.core.loads import RequestRate
from tuner.study.study import Study

pytestmark = [pytest.mark.usefixtures("fake_on_path"), pytest.mark.slow, pytest.mark.timeout(300)]

TWO_INSTANCES = """\
schema: 1
parameters:
  instance_group.count: {field: "instance_group[*].count", ladder: [1, 2]}
"""


@pytest.mark.triton
def test_the_quickest_config_at_a_rate(slow_model: Path, tmp_path: Path) -> None:
    """At four tenths of what one instance of 10 ms can do, each config keeps up, however busy the machine is."""
    space, out = tmp_path / "space.yaml", tmp_path / "run"
    space.write_text(TWO_INSTANCES)
    options = ("--minimize", "latency.p90", "--rate", 40, "--slo", "p99=5s", "--space", space, "--seed", 7)
    done = tritontune("run", slow_model, *options, "--budget", "5m", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "goal:     minimize p90 latency at 40 requests/s\n" in done.stdout

    front: dict[str, Any] = json.loads((out / "slow/front.json").read_text())
    assert front["objective"] == {
        "metric": "latency.p90",
        "direction": "minimize",
        "unit": "ms",
        "request_rate": 40.0,
    }
    best = front["best"]
    assert best["load"] == {"request_rate": 40.0}
    assert best["objective_value"] == best["latency_ms"]["p90"]
    assert best["gain"]["throughput"] is None
    if best["trial"]:
        of = best["gain"]["of"]
        assert best["gain"]["ratio"]["value"] == pytest.approx(of["baseline"] / of["best"], rel=1e-3)
    rows = list(csv.DictReader((out / "slow/trials.csv").read_text().splitlines()))
    assert [(row["trial"], row["concurrency"], float(row["request_rate"])) for row in rows] == [
        ("0", "", 40.0),
        ("1", "", 40.0),
    ]
    assert best["verified"]
    study = Study.load(out / "study.db", "slow")
    assert {verification.load for verification in study.verified} == {RequestRate(40.0)}
    assert (study.recommendation.percentile, study.certified) == ("p90", None)
    assert "minimize p90 latency at 40 requests/s" in (out / "report.html").read_text()
    assert servers_of(out) == []

    again = tritontune("run", "--resume", "--out", out, "--rate", 30)
    assert again.returncode == 2
    assert again.stderr == "tritontune: --rate: this run uses 40.0, not 30.0; omit the option or choose another --out\n"
    exported = tritontune("export", out, "--to", tmp_path / "best")
    assert exported.returncode == 0, exported.stderr
    assert "; objective: minimize p90 latency at 40 requests/s\n" in (tmp_path / "best/slow/config.pbtxt").read_text()
    estimated = tritontune("estimate", out, "--rate", 100)
    assert estimated.returncode == 2
    assert "slow was tuned at a fixed rate; estimate needs a run without --minimize" in estimated.stderr


def test_a_rate_that_nothing_keeps_up_with(slow_model: Path, tmp_path: Path) -> None:
    space, out = tmp_path / "space.yaml", tmp_path / "run"
    space.write_text(TWO_INSTANCES)
    options = ("--minimize", "p99", "--rate", 5000, "--space", space, "--trials", 1, "--budget", "3m")
    done = tritontune("run", slow_model, *options, "--out", out)
    assert done.returncode == 3, done.stderr
    assert done.stderr.splitlines()[-1] == "tritontune: no candidate of slow keeps up with 5000 requests/s"
    assert "baseline: does not keep up with 5000 requests/s in its trial\n" in done.stdout


@pytest.mark.parametrize("metric", ["throughput_per_gpu", "inferences_per_joule"])
def test_what_needs_a_gpu_is_refused_after_the_baseline(slow_model: Path, tmp_path: Path, metric: str) -> None:
    options = ("--maximize", metric, "--trials", 2, "--max-concurrency", 1)
    done = tritontune("run", slow_model, *options, "--out", tmp_path / "run")
    assert done.returncode == 2
    reason = "slow uses no GPU of this machine that NVML reports; use --maximize throughput"
    assert done.stderr.splitlines()[-1] == f"tritontune: --maximize {metric}: {reason}"
