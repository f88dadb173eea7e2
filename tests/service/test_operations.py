from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.service_parts import ADMIN, READER, SUBMITTER, FixedViews, IdleRunner, front_point, idle_service

from tuner.client.resources import JobProgress, Submission, TokenSpec, Trial
from tuner.core.errors import JobError
from tuner.jobs.event_log import EventLog
from tuner.jobs.events import StateChanged
from tuner.service.errors import ConflictError, NotFoundError
from tuner.service.job_folder import JobFolder
from tuner.service.operations import Service
from tuner.service.refusals import ForbiddenError, LimitError


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with idle_service(tmp_path, max_jobs_per_token=3) as service:
        yield service


def _submission(service: Service, **options: Any) -> Submission:
    repository = str(service.data.parent / "models")
    return Submission(job={"repository": repository, "model": "mlp", "slo": {"p99": "40ms"}, **options})


def test_a_job_is_in_its_folder_its_events_and_the_index(service: Service) -> None:
    job = service.submit(SUBMITTER, _submission(service), key="a")
    assert (job.id, job.state, job.models, job.slo, job.submitted_by) == (
        1,
        "queued",
        ("mlp",),
        "p99 <= 40 ms",
        "submitter",
    )
    folder = JobFolder.of(service.jobs_folder, 1)
    record = folder.read()
    assert record.job == service.job(READER, 1) == job
    assert record.key is not None
    assert (record.key.token, record.key.key) == (SUBMITTER.token_id, "a")
    assert [(event.type, event.seq) for event in EventLog(folder.path).read()] == [("state", 1)]
    runner = service.runner
    assert isinstance(runner, IdleRunner)
    assert runner.woken == 1


def test_the_same_key_and_submission_give_the_same_job(service: Service) -> None:
    first = service.submit(SUBMITTER, _submission(service), key="a")
    assert service.submit(SUBMITTER, _submission(service), key="a") == first
    assert service.submit(ADMIN, _submission(service), key="a").id == 2
    assert service.submit(SUBMITTER, _submission(service)).id == 3
    with pytest.raises(ConflictError, match="Idempotency-Key: job 1 was submitted with this key and another body"):
        service.submit(SUBMITTER, _submission(service, budget="1m"), key="a")
    assert [folder.id for folder in JobFolder.all(service.jobs_folder)] == [1, 2, 3]


def test_a_refused_job_leaves_nothing(service: Service) -> None:
    with pytest.raises(ForbiddenError, match="repository"):
        service.submit(SUBMITTER, Submission(job={"repository": "/etc"}))
    with pytest.raises(JobError, match="slo"):
        service.submit(SUBMITTER, _submission(service, slo={"p99": "soon"}))
    with pytest.raises(NotFoundError, match="no target 'none'"):
        service.submit(SUBMITTER, Submission(target="none"))
    assert not JobFolder.all(service.jobs_folder)
    assert not service.jobs(READER).items


def test_a_job_whose_row_cannot_be_written_leaves_no_folder(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ConflictError("no")

    monkeypatch.setattr(service.store, "add_job", fail)
    with pytest.raises(ConflictError):
        service.submit(SUBMITTER, _submission(service))
    assert not JobFolder.all(service.jobs_folder)


def test_a_token_may_have_so_many_jobs(service: Service) -> None:
    for _ in range(3):
        service.submit(SUBMITTER, _submission(service))
    with pytest.raises(LimitError, match="'submitter' has 3 jobs that have not ended; .*max_jobs_per_token"):
        service.submit(SUBMITTER, _submission(service))
    service.submit(ADMIN, _submission(service))
    service.cancel(SUBMITTER, 2)
    assert service.submit(SUBMITTER, _submission(service)).id == 5


def test_secrets_are_stored_and_shown_as_references(tmp_path: Path) -> None:
    with idle_service(tmp_path, environment={"API_TOKEN": "s3cret-value"}, secrets="API_TOKEN") as service:
        job = service.submit(SUBMITTER, _submission(service, header={"authorization": "Bearer ${API_TOKEN}"}))
        assert job.job["header"] == {"authorization": "Bearer ${API_TOKEN}"}
        written = [file.read_bytes() for file in service.data.rglob("*") if file.is_file()]
        assert any(b"${API_TOKEN}" in text for text in written)
        assert not any(b"s3cret-value" in text for text in written)


def test_a_job_that_has_ended_can_be_repeated(service: Service) -> None:
    service.submit(SUBMITTER, _submission(service, budget="1m"))
    with pytest.raises(ConflictError, match="job 1 is queued; only a job that has ended can be repeated"):
        service.retry(SUBMITTER, 1)
    service.cancel(SUBMITTER, 1)
    again = service.retry(ADMIN, 1)
    assert (again.id, again.retry_of, again.submitted_by, again.state) == (2, 1, "admin", "queued")
    assert again.job == service.job(READER, 1).job


def test_the_end_of_a_job_is_told_by_its_events(service: Service) -> None:
    service.submit(SUBMITTER, _submission(service))
    service.store.change_job(1, among={"queued"}, state="running")
    views = service.views
    assert isinstance(views, FixedViews)
    at = service.clock()
    views.view.state = StateChanged(seq=9, at=at, state="failed", reason="the baseline cannot be launched", exit_code=1)
    job = service.job(READER, 1)
    assert (job.state, job.reason, job.exit_code, job.ended_at) == ("failed", "the baseline cannot be launched", 1, at)
    assert service.retry(SUBMITTER, 1).retry_of == 1
    views.view.state = StateChanged(seq=10, at=at, state="running")
    assert service.job(READER, 1).state == "running"


def test_a_running_job_shows_what_its_events_tell(service: Service) -> None:
    service.submit(SUBMITTER, _submission(service))
    service.store.change_job(1, among={"queued"}, state="running")
    views = service.views
    assert isinstance(views, FixedViews)
    views.view.progress = JobProgress(trials=3, points=12)
    views.view.points = (front_point(1, 100, 5),)
    views.view.trials += [Trial(model="mlp", number=number, candidate="", state="measured") for number in range(5)]
    assert service.job(READER, 1).progress.trials == service.jobs(READER).items[0].progress.trials == 3
    assert service.job(READER, 1).phase == "search"
    assert service.front(READER, 1).points == views.view.points
    first = service.trials(READER, 1, limit=3)
    second = service.trials(READER, 1, limit=3, cursor=first.next)
    assert [trial.number for trial in (*first.items, *second.items)] == [0, 1, 2, 3, 4]
    assert second.next is None


def test_artifacts_are_the_files_within_the_folder(service: Service, tmp_path: Path) -> None:
    service.submit(SUBMITTER, _submission(service))
    folder = JobFolder.of(service.jobs_folder, 1)
    (folder.run / "mlp").mkdir(parents=True)
    (folder.run / "report.html").write_text("<html>")
    (folder.path / ".lease").write_text("x")
    (tmp_path / "secret").write_text("x")
    (folder.run / "link").symlink_to(tmp_path / "secret")
    (folder.run / "mlp" / "up").symlink_to("/etc")
    found = service.artifacts(READER, 1)
    assert [artifact.path for artifact in found.items] == ["events.jsonl", "run/report.html", "submission.json"]
    assert service.artifact(READER, 1, "run/report.html").read_text() == "<html>"
    for path in (
        "run/link",
        "run/mlp/up/passwd",
        "../../service.db",
        "run/../../../secret",
        "/etc/passwd",
        ".lease",
        "",
    ):
        with pytest.raises(NotFoundError, match="no file"):
            service.artifact(READER, 1, path)


def test_a_token_cannot_remove_itself(service: Service) -> None:
    token = service.new_token(ADMIN, TokenSpec(name="ci", role="submit"))
    assert [each.name for each in service.tokens(ADMIN).items] == ["ci"]
    with pytest.raises(ConflictError, match="cannot remove itself"):
        service.remove_token(ADMIN, ADMIN.token_id)
    service.remove_token(ADMIN, token.id)
    assert not service.tokens(ADMIN).items


def test_each_operation_checks_the_role(service: Service) -> None:
    service.submit(SUBMITTER, _submission(service))
    for refused in (
        lambda: service.submit(READER, _submission(service)),
        lambda: service.cancel(READER, 1),
        lambda: service.retry(READER, 1),
        lambda: service.new_token(SUBMITTER, TokenSpec(name="x", role="admin")),
        lambda: service.tokens(SUBMITTER),
        lambda: service.remove_token(SUBMITTER, "x"),
    ):
        with pytest.raises(ForbiddenError, match="this needs the role"):
            refused()


def test_the_order_of_keys_in_a_submission_does_not_matter(service: Service) -> None:
    options = _submission(service).job
    turned = json.loads(json.dumps(dict(reversed(options.items()))))
    first = service.submit(SUBMITTER, Submission(job=options), key="a")
    assert service.submit(SUBMITTER, Submission(job=turned), key="a") == first
