"""What ships in `docker/nightly` for cron, systemd, Kubernetes and GitHub says what it must, in their own syntax."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tuner.core.quantities import parse_duration
from tuner.nightly.jobs import JobsFile, jobs_schema
from tuner.nightly.tasks import tasks_of

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "docker/nightly"
_FIELDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


def _check_schedule(schedule: str) -> None:
    """Five fields of cron, each a star or a number within its range."""
    fields = schedule.split()
    assert len(fields) == 5
    for field, (low, high) in zip(fields, _FIELDS, strict=True):
        assert field == "*" or low <= int(field) <= high


def _window_s() -> float:
    return JobsFile.read(UNITS / "jobs.yaml").window


def test_the_job_file_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    path = Path("docker/nightly/jobs.yaml")
    (task,) = tasks_of(JobsFile.read(path), path, print)
    assert (task.name, task.job.slo.root) == ("model_repository/mlp", {"p99": 100.0})
    Draft202012Validator(jobs_schema()).validate(yaml.safe_load(path.read_text()))
    schema = re.search(r"\$schema=(\S+)", path.read_text())
    assert schema
    assert json.loads((path.parent / schema[1]).read_text()) == jobs_schema()


def test_cron() -> None:
    lines = [line for line in (UNITS / "crontab").read_text().splitlines() if line and not line.startswith("#")]
    settings = [line for line in lines if re.match(r"[A-Z]+=", line)]
    (entry,) = [line for line in lines if line not in settings]
    *schedule, user, command = entry.split(maxsplit=6)
    _check_schedule(" ".join(schedule))
    assert user == "triton"
    # To cron, a percent sign ends the command.
    assert "%" not in command
    assert "tritontune nightly jobs.yaml" in command
    limit = re.search(r"timeout --kill-after=5m (\d+)m ", command)
    assert limit
    assert int(limit[1]) * 60 > _window_s()
    assert subprocess.run(["sh", "-n", "-c", command], check=False).returncode == 0


def _unit(name: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's names have capitals
    parser.read(UNITS / name)
    return parser


def test_systemd() -> None:
    service, timer = _unit("tritontune-nightly.service"), _unit("tritontune-nightly.timer")
    assert service["Service"]["Type"] == "oneshot"
    assert service["Service"]["ExecStart"].endswith("/tritontune nightly jobs.yaml")
    assert service["Service"]["SuccessExitStatus"] == "10 20"
    assert parse_duration(service["Service"]["TimeoutStartSec"].replace(" ", "")) > _window_s()
    assert timer["Timer"]["Unit"] == "tritontune-nightly.service"
    assert timer["Timer"]["Persistent"] == "true"


def test_systemd_itself_takes_them(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("needs systemd-analyze: apt-get install systemd")
    for name in ("tritontune-nightly.service", "tritontune-nightly.timer"):
        # It looks for the program, which is nowhere near here.
        text = (UNITS / name).read_text().replace("/opt/tritontune/bin/tritontune", shutil.which("true") or "/bin/true")
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(tmp_path / "tritontune-nightly.timer")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    ours = [line for line in done.stderr.splitlines() if "tritontune" in line]
    assert (done.returncode, ours) == (0, []), done.stderr


def test_kubernetes() -> None:
    documents = {each["kind"]: each for each in yaml.safe_load_all((UNITS / "cronjob.yaml").read_text())}
    cron: dict[str, Any] = documents["CronJob"]["spec"]
    _check_schedule(cron["schedule"])
    assert cron["concurrencyPolicy"] == "Forbid"
    job = cron["jobTemplate"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    (init,) = pod["initContainers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container["args"][:2] == ["nightly", "/config/jobs.yaml"]
    assert pod["restartPolicy"] == "Never"
    assert job["backoffLimit"] == 0
    assert "/models/" in init["command"][-1]
    volumes = {volume["name"] for volume in pod["volumes"]}
    for each in (container, init):
        assert {mount["name"] for mount in each["volumeMounts"]} <= volumes
    config = documents["ConfigMap"]
    (name,) = [volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume]
    assert name == config["metadata"]["name"]
    claims = [v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v]
    assert documents["PersistentVolumeClaim"]["metadata"]["name"] in claims


def test_the_job_file_in_kubernetes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    documents = {each["kind"]: each for each in yaml.safe_load_all((UNITS / "cronjob.yaml").read_text())}
    path = tmp_path / "jobs.yaml"
    path.write_text(documents["ConfigMap"]["data"]["jobs.yaml"])
    monkeypatch.setenv("SLACK_WEBHOOK", "https://hooks.example/x")
    file = JobsFile.read(path)
    assert file.jobs[0].server == "process"
    assert documents["CronJob"]["spec"]["jobTemplate"]["spec"]["activeDeadlineSeconds"] > file.window
    container = documents["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    assert {mount["mountPath"] for mount in container["volumeMounts"]} >= {"/config", "/models", "/work"}
    assert file.work.is_relative_to("/work")
    assert {variable["name"] for variable in container["env"]} == {"SLACK_WEBHOOK"}


def test_the_other_way_to_get_the_repository() -> None:
    """The init container that copies from S3 is in comments; without these it takes the other one's place."""
    text = (UNITS / "cronjob.yaml").read_text()
    commented = re.search(r"in the place of the one above:\n((?: +#.*\n)+)", text)
    assert commented
    (init,) = yaml.safe_load(re.sub(r"^( +)# ", r"\1", commented[1], flags=re.MULTILINE))
    assert init["command"][:3] == ["aws", "s3", "sync"]
    assert init["volumeMounts"] == [{"name": "models", "mountPath": "/models"}]


def test_github() -> None:
    workflow = yaml.safe_load((UNITS / "github-workflow.yml").read_text())
    # YAML 1.1 reads the key `on` as true.
    triggers = workflow[True]
    _check_schedule(triggers["schedule"][0]["cron"])
    assert workflow["concurrency"]["cancel-in-progress"] is False
    assert workflow["permissions"] == {"contents": "write", "pull-requests": "write"}
    job = workflow["jobs"]["nightly"]
    assert job["runs-on"][0] == "self-hosted"
    assert job["timeout-minutes"] * 60 > _window_s()
    night, request, summary = [step for step in job["steps"] if "run" in step]
    assert "tritontune nightly jobs.yaml" in night["run"]
    assert "== '10'" in request["if"]
    assert "gh pr create" in request["run"]
    assert summary["if"] == "always()"
    for step in (night, request, summary):
        # Secrets and names go through the environment, so that none is ever read as a command.
        assert "${{" not in step["run"]
        assert subprocess.run(["bash", "-n", "-c", step["run"]], check=False).returncode == 0


def test_what_github_runs_between(tmp_path: Path) -> None:
    """The lines of Python in the workflow put improved configs in place and say what they do."""
    workflow = yaml.safe_load((UNITS / "github-workflow.yml").read_text())
    script = next(step["run"] for step in workflow["jobs"]["nightly"]["steps"] if "PYTHON" in step.get("run", ""))
    python = re.search(r"<<'PYTHON'\n(.*?)\nPYTHON\n", script, re.DOTALL)
    assert python
    for folder in ("models/mlp", "models/other", "night/improved"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "night/improved/config.pbtxt").write_text("new")
    (tmp_path / "night/improved/config.diff").write_text("-old\n+new\n")
    jobs = [
        {"action": action, "folder": "night", "repository": "models", "model": model, "reason": "1.30 x the throughput"}
        for model, action in (("mlp", "proposed in x"), ("other", ""))
    ]
    (tmp_path / "night.json").write_text(json.dumps({"jobs": jobs}))
    done = subprocess.run(
        ["python3", "-c", python[1], "night.json"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert (tmp_path / "models/mlp/config.pbtxt").read_text() == "new"
    assert not (tmp_path / "models/other/config.pbtxt").exists()
    assert done.stdout == "**mlp**: 1.30 x the throughput\n\n```diff\n-old\n+new\n```\n\n"
