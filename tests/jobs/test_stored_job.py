from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tuner.core.errors import JobError
from tuner.jobs.stored_job import resumed_job, store_job
from tuner.options.tune_job import TuneJob

_ALL: dict[str, Any] = {
    "model": ["a", "b"],
    "slo": ["p99=25ms", "p50=10ms"],
    "budget": "90s",
    "trials": 7,
    "space": "latency",
    "precision": "4%,12%",
    "max_gpu_memory": "8GiB",
    "output_tolerance": "off",
    "verify": False,
    "explain": True,
    "server": "docker",
    "image": "triton:1",
    "launch_timeout": "2m",
    "triton_arg": ["--exit-timeout-secs=5"],
    "gpus": "0,1",
    "shm_size": "2GiB",
    "mount": ["/data:/data:ro", "weights:/weights"],
    "docker_arg": ["cap_add=[SYS_PTRACE]", "init=true"],
    "shape": ["IN:4,8"],
    "request_parameter": ["deadline:5:int", "who:me:string"],
    "queue_timeout": "20ms",
    "sequence_length": 9,
    "seed": 3,
}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run/job.yaml"


def _stored(file: Path, **options: Any) -> TuneJob:
    job = TuneJob.make({"repository": "models", **options})
    store_job(job, file)
    return job


def test_all_comes_back(repository: Path, file: Path) -> None:
    job = _stored(file, **_ALL)
    again = resumed_job(file, {})
    assert again == job.model_copy(update={"repository": repository})
    assert resumed_job(file, {"repository": "models", **_ALL}) == job


def test_where_trials_run_may_change(repository: Path, file: Path) -> None:
    _stored(file, executor="ray", ray_address="head:6379", parallel=8, mixed=True, repository_on_hosts="/models")
    assert resumed_job(file, {}).ray_address == "head:6379"
    assert resumed_job(file, {"parallel": "2", "ray_address": "other:6379"}).parallel == 2
    here = resumed_job(file, {"executor": "local", "parallel": "auto", "cores_per_slot": "2"})
    assert here == TuneJob.make({"repository": repository, "parallel": "auto", "cores_per_slot": 2})
    with pytest.raises(JobError, match="--mixed needs --executor ray"):
        resumed_job(file, {"executor": "local", "mixed": True})


def test_files_are_found_from_elsewhere(
    repository: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("mine.yaml").write_text("schema: 1\nparameters: {}\n")
    Path("data.json").write_text("{}")
    _stored(file, space="mine.yaml", input_data="data.json", warm_start="before")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    job = resumed_job(file, {"input_data": "../data.json"})
    assert (job.repository, job.space) == (repository, str(tmp_path / "mine.yaml"))
    assert job.warm_start == tmp_path / "before"


def test_a_word_is_no_file_though_there_is_one_of_that_name(repository: Path, file: Path) -> None:
    (repository.parent / "latency").mkdir()
    _stored(file, space="latency")
    assert resumed_job(file, {"space": "latency"}).space == "latency"


@pytest.mark.usefixtures("repository")
def test_what_may_change_changes(file: Path) -> None:
    _stored(file, slo=["p99=25ms"], budget="1m", processes=1)
    job = resumed_job(file, {"budget": "5m", "trials": 9, "processes": 2, "explain": True, "model": ["a"]})
    assert (job.budget, job.trials, job.processes, job.explain, job.model) == (300, 9, 2, True, ("a",))
    assert job.slo.root == {"p99": 25}


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"slo": ["p99=20ms"]}, "--slo: this run uses p99 <= 25 ms, not p99 <= 20 ms; omit the option"),
        ({"repository": "others"}, r"MODEL_REPO: this run uses /.*/models, not others; omit the option"),
        ({"seed": "4"}, "--seed: this run uses 0, not 4; omit the option or choose another --out"),
        ({"batch_size": 2}, "--batch-size: this run uses 1, not 2;"),
        ({"max_gpu_memory": "1GiB"}, "--max-gpu-memory: this run uses none, not 1073741824;"),
        ({"budget": "soon"}, "--budget: 'soon' is not a duration"),
    ],
)
def test_another_study_is_refused(file: Path, given: dict[str, Any], complaint: str) -> None:
    _stored(file, slo=["p99=25ms"])
    with pytest.raises(JobError, match=f"^{complaint}"):
        resumed_job(file, given)


@pytest.mark.usefixtures("repository")
def test_secrets_are_not_stored(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDED_ON", "hush")
    secrets = {"header": ["authorization: Bearer hush"], "env": ["TOKEN=hush", "HANDED_ON"]}
    _stored(file, server="process", **secrets)
    assert "hush" not in file.read_text()
    with pytest.raises(JobError, match=r"^--header: give it again: the run did not store it, since it may be secret"):
        resumed_job(file, {"env": ["TOKEN=hush"]})
    with pytest.raises(JobError, match=r"^--env TOKEN: give it again: "):
        resumed_job(file, {"header": secrets["header"]})
    job = resumed_job(file, secrets)
    assert job.env == {"TOKEN": "hush", "HANDED_ON": None}
    restricted = ["--http-restricted-api=inference:admin-key=hush", "--exit-timeout-secs=5"]
    _stored(file, server="process", triton_arg=restricted)
    assert "hush" not in file.read_text()
    with pytest.raises(JobError, match=r"^--triton-arg: give it again: "):
        resumed_job(file, {})
    assert resumed_job(file, {"triton_arg": restricted}).triton_arg == tuple(restricted)
    keyed = ["api_key:hush:string"]
    _stored(file, request_parameter=keyed)
    assert "hush" not in file.read_text()
    with pytest.raises(JobError, match=r"^--request-parameter: give it again: "):
        resumed_job(file, {})
    assert resumed_job(file, {"request_parameter": keyed}).request_parameter == {"api_key": "hush"}
    metrics = "http://me:hush@host:8002/metrics"
    _stored(file, url="host:8001", metrics_url=metrics)
    assert "hush" not in file.read_text()
    assert resumed_job(file, {"metrics_url": metrics}).metrics_url == metrics
    _stored(file, server="process", env=["HANDED_ON"])
    assert resumed_job(file, {}).env == {"HANDED_ON": None}


@pytest.mark.usefixtures("repository")
def test_a_run_without_a_stored_job_needs_all_of_it(file: Path) -> None:
    assert resumed_job(file, {"repository": "models", "seed": 2}).seed == 2
    with pytest.raises(JobError, match="nothing to tune: give MODEL_REPO"):
        resumed_job(file, {})
    file.parent.mkdir()
    file.write_text("- nothing\n")
    with pytest.raises(JobError, match=r"job.yaml: not a stored job"):
        resumed_job(file, {})
