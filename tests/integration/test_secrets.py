"""What a night and an export leave, searched byte by byte for what was secret in the job."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from support.nights import jobs_file

from tuner.cli.main import cli
from tuner.jobs import model_tuning
from tuner.measure.rules import LevelRules
from tuner.nightly import model_night
from tuner.testing.repositories import ModelRepositoryFactory, config_text

pytestmark = [pytest.mark.triton, pytest.mark.timeout(200)]

_MARK = "hunter2"
# Says its environment aloud, as some models do.
_TALKS = "\nimport os\nprint('the environment:', dict(os.environ), flush=True)\n"


def test_no_secret_of_a_job_is_in_what_it_leaves(
    model_repository: ModelRepositoryFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_tuning, "_SWEEP_RULES", LevelRules(min_s=0.1, max_s=0.1))
    for name in ("_RULES", "_CANDIDATE_RULES"):
        monkeypatch.setattr(model_night, name, LevelRules(min_s=0.1, max_s=0.1))
    monkeypatch.setenv("HANDED_ON", f"{_MARK}-handed-on")
    model_repository.add("slow", config=config_text(sleep_ms=1))
    with (model_repository.path / "slow/1/model.py").open("a", encoding="utf-8") as file:
        file.write(_TALKS)
    space = tmp_path / "space.yaml"
    space.write_text("schema: 1\nparameters:\n  dynamic_batching: {ladder: [off, on]}\n")
    (out := tmp_path / "out").mkdir()
    jobs = jobs_file(
        tmp_path / "jobs.yaml",
        {
            "repository": str(model_repository.path),
            "slo": {"p99": "1s"},
            "budget": "60s",
            "trials": 1,
            "max_concurrency": 1,
            "isolation": "reload",
            "verify": False,
            "space": str(space),
            "env": {"API_TOKEN": f"{_MARK}-token", "PLAIN": f"{_MARK}-plain", "HANDED_ON": None, "OMP_NUM_THREADS": 2},
            "header": {"authorization": f"Bearer {_MARK}-bearer"},
            "request_parameter": {"api_key": f"{_MARK}-parameter"},
            "triton_arg": [f"--http-restricted-api=health:admin-key={_MARK}-argument", "--log-verbose=1"],
        },
        work=str(out / "work"),
        window="100s",
        prometheus=str(out / "nightly.prom"),
        notify=[{"webhook": f"http://127.0.0.1:9/{_MARK}-hook"}, {"file": str(out / "told.jsonl")}],
    )
    done = CliRunner().invoke(cli, ["nightly", str(jobs), "--json"])
    assert done.exit_code in {0, 10}, done.output
    (run,) = out.glob("work/nights/*/model_repository/slow")
    exported = CliRunner().invoke(cli, ["export", str(run), "--to", str(out / "exported.pbtxt")])
    assert exported.exit_code == 0, exported.output

    left = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert {"study.db", "history.db", "report.html", "job.yaml", "command.txt", "server.log", "exported.pbtxt"} <= {
        path.name for path in left
    }
    assert [str(path) for path, content in left.items() if _MARK.encode() in content] == []
    assert _MARK not in done.output + exported.output
    # What makes another server of it is told.
    assert "OMP_NUM_THREADS=2" in (out / "exported.pbtxt").read_text()
    assert "admin-key=***" in (out / "exported.pbtxt").read_text()
    log = next(content for path, content in left.items() if path.name == "server.log")
    assert b"the environment:" in log
