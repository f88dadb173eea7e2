from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.nights import jobs_file

from tuner.core.errors import JobError, TritontuneError
from tuner.jobs.stored_job import store_job
from tuner.nightly.jobs import JobsFile
from tuner.nightly.secrets import expanded, shown
from tuner.nightly.tasks import tasks_of
from tuner.options.tune_job import TuneJob
from tuner.testing.repositories import ModelRepositoryFactory, config_text


@pytest.fixture
def repository(model_repository: ModelRepositoryFactory) -> Path:
    for name in ("slow", "other"):
        model_repository.add("slow", name=name)
    return model_repository.path


def test_what_it_says(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", "https://hooks.example/T0/s3cret")
    path = jobs_file(
        tmp_path / "jobs.yaml",
        {"repository": str(repository), "model": "slow", "slo": {"p99": "40ms"}, "budget": "90s", "min_gain": "5%"},
        {
            "repository": str(repository),
            "model": ["other"],
            "action": "command",
            "command": ["true"],
            "precision": "10%,30%",
        },
        window="1h",
        min_regression="8 %",
        notify=[{"webhook": "${HOOK}"}, {"file": str(tmp_path / "told.jsonl")}],
    )
    file = JobsFile.read(path)
    assert [job.model for job in file.jobs] == [("slow",), ("other",)]
    assert (file.jobs[0].slo.root, file.jobs[0].budget, file.window) == ({"p99": 40.0}, 90.0, 3600.0)
    assert [file.min_gain_of(job) for job in file.jobs] == [0.05, 0.03]
    assert {file.min_regression_of(job) for job in file.jobs} == {0.08}
    assert [each.url for each in file.notify] == ["https://hooks.example/T0/s3cret", None]
    assert "s3cret" not in repr(file)
    assert file.history_url == "tritontune-nightly/history.db"


def test_a_tuning_is_asked_for_in_the_words_of_run(repository: Path, tmp_path: Path) -> None:
    job = {"repository": str(repository), "model": "slow", "slo": {"p99": "40ms"}, "env": ["A=b"], "action": "apply"}
    file = JobsFile.read(jobs_file(tmp_path / "jobs.yaml", job))
    asked = file.jobs[0].tuning(budget=90.0, warm_start=tmp_path)
    wanted = {"repository": str(repository), "model": "slow", "slo": ["p99=40ms"], "env": ["A=b"], "budget": "90s"}
    same = TuneJob.make({**wanted, "warm_start": str(tmp_path)})
    assert (asked, asked.model_fields_set) == (same, same.model_fields_set)
    store_job(asked, tmp_path / "job.yaml")
    assert "action" not in (tmp_path / "job.yaml").read_text()


def test_without_models_every_one_of_the_repository_is_looked_after(repository: Path, tmp_path: Path) -> None:
    path = jobs_file(tmp_path / "jobs.yaml", {"repository": str(repository), "budget": "1m"})
    tasks = tasks_of(JobsFile.read(path), path, print)
    assert [(task.name, task.job.model) for task in tasks] == [
        ("model_repository/other", ("other",)),
        ("model_repository/slow", ("slow",)),
    ]


@pytest.mark.parametrize(
    ("job", "settings", "complaint"),
    [
        ({"budegt": "10m"}, {}, "jobs[0]: unknown option 'budegt'; did you mean 'budget'?"),
        ({}, {"widnow": "4h"}, "jobs.yaml: unknown option 'widnow'; did you mean 'window'?"),
        ({"repository": "nowhere"}, {}, "jobs[0]: nowhere: no such folder"),
        ({"repository": None}, {}, "jobs[0]: nothing to tune: give MODEL_REPO"),
        ({"model": "slwo"}, {}, "no model 'slwo'; did you mean 'slow'?"),
        ({"slo": {"p99": 40}}, {}, "jobs[0]: slo: 40 has no unit; write 40ms"),
        ({"slo": {"p99": "40"}}, {}, "jobs[0]: slo: 40 has no unit; write 40ms"),
        ({"slo": {"p98": "40ms"}}, {}, "jobs[0]: slo: 'p98' is not a supported percentile"),
        ({"budget": "5h"}, {"window": "4h"}, "window: the budget is 5h00m, but the window is 4h00m"),
        ({"model": ["slow", "other"], "budget": "3h"}, {"window": "4h"}, "the budgets of 2 models are 6h00m"),
        ({"model": ["slow", "slow"]}, {}, ""),
        ({"action": "aply"}, {}, "jobs[0]: action: must be 'propose', 'apply' or 'command', got 'aply'"),
        ({"action": "command"}, {}, "`action: command` needs `command: [program, argument]`"),
        ({"command": ["true"]}, {}, "`command` needs `action: command`"),
        ({"action": "command", "command": "git push"}, {}, "must be a list of program and arguments: [git, push]"),
        ({"action": "command", "command": ["no-such-program"]}, {}, "no executable program 'no-such-program'"),
        ({"min_gain": "3 percent"}, {}, "jobs[0]: min_gain: '3 percent' is not a share; write it as 3% or 0.03"),
        ({}, {"min_gain": 3}, "jobs.yaml: min_gain: must be >= 0 and < 1"),
        ({}, {"notify": [{"webhook": "${NOT_SET_HERE}"}]}, "environment variable NOT_SET_HERE is not set"),
        (
            {},
            {"notify": [{"webhook": "hooks.example"}]},
            "notify[0]: webhook: is not a URL; write https://",
        ),
        ({}, {"notify": [{"file": "a", "slack": "https://b"}]}, "must have exactly one of webhook, slack and file"),
        ({}, {"notify": [{"mail": "a"}]}, "notify[0]: unknown option 'mail'"),
        ({}, {"prometheus": "metrics.txt"}, "must end in .prom"),
        ({}, {"prometheus": "/nowhere/x.prom"}, "prometheus: /nowhere is not a writable folder"),
        ({"space": "defualt"}, {}, "did you mean 'default'?"),
        ({"out": "x"}, {}, "jobs[0]: unknown option 'out'"),
        ({"server": "process", "image": "x:1"}, {}, "jobs[0]: --image needs Docker; leave it out"),
        ({"triton_path": "/nowhere"}, {}, "jobs[0]: --triton-path /nowhere: neither a program nor a folder"),
        ({}, {"work": ""}, "jobs.yaml: work: must not be empty"),
        ({}, {"work": "/dev/null"}, "jobs.yaml: work: /dev/null is not a folder"),
        ({}, {"notify": [{"file": ""}]}, "notify[0]: file: must not be empty"),
        ({"input_data": "nowhere.json"}, {}, "'nowhere.json' is no such file; write random, zero, or"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    repository: Path, tmp_path: Path, job: dict[str, Any], settings: dict[str, Any], complaint: str
) -> None:
    whole = {key: value for key, value in {"repository": str(repository), "model": "slow", **job}.items() if value}
    path = jobs_file(tmp_path / "jobs.yaml", whole, **settings)
    if not complaint:
        assert len(tasks_of(JobsFile.read(path), path, print)) == 1
        return
    with pytest.raises(JobError) as caught:
        tasks_of(JobsFile.read(path), path, print)
    assert complaint in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_two_jobs_for_one_model(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(repository)
    path = jobs_file(
        tmp_path / "jobs.yaml", {"repository": str(repository), "model": "slow"}, {"repository": str(tmp_path / "link")}
    )
    with pytest.raises(JobError, match=r"jobs\[1\]: jobs\[0\] is for model 'slow' of .* too; omit one of them"):
        tasks_of(JobsFile.read(path), path, print)


def test_work_does_not_go_into_the_repository(repository: Path, tmp_path: Path) -> None:
    path = jobs_file(tmp_path / "jobs.yaml", {"repository": str(repository)}, work=str(repository / "work"))
    with pytest.raises(JobError, match="lies in the model repository"):
        tasks_of(JobsFile.read(path), path, print)


def test_a_model_that_cannot_be_tuned_is_said_before_the_night(
    model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    config = config_text() + 'platform: "ensemble"\nensemble_scheduling { step [] }\n'
    model_repository.add("slow", name="both", config=config.replace('backend: "python"\n', ""))
    path = jobs_file(tmp_path / "jobs.yaml", {"repository": str(model_repository.path), "model": "both"})
    with pytest.raises(TritontuneError, match=r"jobs\[0\]: model 'both': "):
        tasks_of(JobsFile.read(path), path, print)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("jobs: []", "jobs: must be a list of at least one job"),
        ("jobs: {repository: x}", "jobs: must be a list of at least one job"),
        ("jobs: [x]", r"jobs\[0\]: must be a mapping of options"),
        ("window: 4h", "jobs is missing"),
        ("- a", "a nightly job file must be a mapping"),
        ("jobs: [", r"jobs.yaml:\d:\d"),
    ],
)
def test_what_is_no_job_file(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "jobs.yaml").write_text(text)
    with pytest.raises(JobError, match=complaint):
        JobsFile.read(tmp_path / "jobs.yaml")


def test_a_job_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="jobs.yaml: cannot be read: No such file"):
        JobsFile.read(tmp_path / "jobs.yaml")


def test_secrets_come_from_the_environment_and_are_not_shown() -> None:
    assert expanded("https://${HOST}/a?t=${TOKEN}", {"HOST": "h", "TOKEN": "t"}) == "https://h/a?t=t"
    with pytest.raises(ValueError, match="TOKEN is not set or empty"):
        expanded("${TOKEN}", {"TOKEN": ""})
    assert shown("https://me:pw@hooks.slack.com:8443/services/T0/B0/x") == "https://hooks.slack.com:8443/..."
    assert shown("http://alerts") == "http://alerts"
