from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from support.command_line import tritontune
from support.nights import jobs_file
from support.web_peer import Reply, WebPeer

from tuner.cli.nightly import check, print_schema
from tuner.core.errors import JobError
from tuner.core.lock import locked
from tuner.nightly.jobs import jobs_schema
from tuner.testing.repositories import ModelRepositoryFactory, config_text


@pytest.fixture
def job(model_repository: ModelRepositoryFactory) -> dict[str, Any]:
    model_repository.add("slow")
    return {"repository": str(model_repository.path), "slo": {"p99": "40ms"}, "budget": "90s"}


def test_what_the_night_would_do(job: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with WebPeer(lambda _asked: Reply(404)) as peer:
        path = jobs_file(
            tmp_path / "jobs.yaml", job, work=str(tmp_path / "work"), notify=[{"webhook": f"http://{peer.address}/x"}]
        )
        check(path, as_json=False)
        assert [asked.line for asked in peer.asked] == ["HEAD /x"]
    assert capsys.readouterr().out.splitlines() == [
        "model_repository/slow: SLO p99 <= 40 ms, budget 1m30s, action propose if the gain's lower bound exceeds 3.0%",
        f"history: {tmp_path / 'work/history.db'}; window for all jobs: 8h00m",
    ]
    assert not (tmp_path / "work").exists()


def test_for_machines(job: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(jobs_file(tmp_path / "jobs.yaml", job, work=str(tmp_path / "work")), as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told == {"schema": 1, "ok": True, "jobs": [{"repository": job["repository"], "model": "slow"}]}


def test_nobody_to_tell(job: dict[str, Any], tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        path = jobs_file(tmp_path / "jobs.yaml", job, work=str(tmp_path), notify=[{"webhook": f"{url}/s3cret"}])
        with pytest.raises(JobError) as caught:
            check(path, as_json=False)
    assert str(caught.value).startswith(f"{path}: notify[0]: {url}/... cannot be reached: ")
    path = jobs_file(tmp_path / "jobs.yaml", job, work=str(tmp_path), notify=[{"file": "/nowhere/told"}])
    with pytest.raises(JobError, match=r"notify\[0\]: file: there is no folder /nowhere"):
        check(path, as_json=False)


def test_a_history_that_cannot_be(job: dict[str, Any], tmp_path: Path) -> None:
    path = jobs_file(tmp_path / "jobs.yaml", job, history="postgresql://me:s3cret@127.0.0.1:1/db")
    with pytest.raises(JobError, match="history: .*refused"):
        check(path, as_json=False)
    path = jobs_file(tmp_path / "jobs.yaml", job, history=str(tmp_path / "jobs.yaml/of/history.db"))
    with pytest.raises(JobError, match=r"history.db: cannot write to .*/jobs.yaml$"):
        check(path, as_json=False)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"load_model": ["slow"]}, "--load-model slow: this is the model itself"),
        ({"space": "space.yaml"}, "space.yaml: max_batch_size: must be a whole number .*, got 'many'$"),
    ],
)
def test_what_a_run_refuses_before_a_launch(
    job: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, object],
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("space.yaml").write_text("schema: 1\nparameters: {max_batch_size: {ladder: [8, many]}}")
    with pytest.raises(JobError, match=rf"jobs\[0\]: {complaint}"):
        check(jobs_file(tmp_path / "jobs.yaml", {**job, **options}, work=str(tmp_path / "work")), as_json=False)


def test_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    print_schema()
    assert json.loads(capsys.readouterr().out) == jobs_schema()


def test_two_nights_at_once(model_repository: ModelRepositoryFactory, tmp_path: Path) -> None:
    model_repository.add("slow", config=config_text())
    jobs = jobs_file(
        tmp_path / "jobs.yaml", {"repository": str(model_repository.path), "budget": "30s"}, work=str(tmp_path / "work")
    )
    with locked(tmp_path / "work", option="work", holder="another night"):
        done = tritontune("nightly", jobs)
    assert (done.returncode, len(done.stderr.splitlines()), done.stdout) == (2, 1, "")
    assert done.stderr.endswith("in use by another night\n")
    assert not (tmp_path / "work/nights").exists()
