"""The client over the real REST API: the same words on both sides, over a real socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.builders import MLP
from support.live_service import live
from support.service_parts import front_point, idle_service
from support.web_services import submission

from tuner.client import Client
from tuner.client import client as module
from tuner.client.resources import (
    Job,
    Proposal,
    Role,
    ScheduleSpec,
    Submission,
    TargetSpec,
    TokenSpec,
    Trial,
)
from tuner.config.deploy import sha256_of
from tuner.core.errors import (
    JobError,
    NotAllowedError,
    NotThereError,
    RefusedError,
    StateConflictError,
    TokenRefusedError,
)
from tuner.jobs.event_log import EventLog
from tuner.jobs.events import Noted, StateChanged
from tuner.service.app import create_app
from tuner.service.job_folder import JobFolder
from tuner.service.operations import Service
from tuner.service.proposal_records import ProposalFolder, ProposalRecord

ClientOf = Callable[[Role], Client]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with idle_service(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture(scope="module")
def client_of(service: Service) -> Iterator[ClientOf]:
    with live(create_app(service)) as address:

        def client_of(role: Role) -> Client:
            name = f"{role}-{len(service.store.tokens(limit=100).items)}"
            return Client(address, service.auth.new_token(TokenSpec(name=name, role=role)).secret)

        yield client_of


@pytest.fixture(scope="module")
def admin(client_of: ClientOf) -> Iterator[Client]:
    with client_of("admin") as client:
        yield client


def _submission(service: Service, **options: Any) -> Submission:
    return Submission(**submission(service, **options))


def _events(service: Service, job: int) -> EventLog:
    return EventLog(service.jobs_folder / str(job))


def test_jobs(admin: Client, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    first = admin.submit(_submission(service))
    assert (first.state, first.models, first.slo) == ("queued", ("mlp",), "p99 <= 40 ms")
    others = [admin.submit(_submission(service, budget=f"{minutes}m")) for minutes in (1, 2, 3, 4)]
    monkeypatch.setattr(module, "_PAGE", 2)
    listed = [job.id for job in admin.jobs(states=("queued", "running"), kind="tune", model="mlp")]
    assert listed[:5] == [job.id for job in reversed([first, *others])]
    assert [job.id for job in admin.jobs(limit=3)] == listed[:3]
    assert list(admin.jobs(states=["lost"])) == []
    assert admin.job(first.id).id == first.id


def test_a_key(admin: Client, service: Service) -> None:
    wanted = _submission(service)
    job = admin.submit(wanted, key="v8")
    assert admin.submit(wanted, key="v8").id == job.id
    with pytest.raises(StateConflictError, match="submitted with this key and another body"):
        admin.submit(_submission(service, budget="7m"), key="v8")


def test_cancelling_and_repeating(admin: Client, service: Service) -> None:
    job = admin.submit(_submission(service))
    assert admin.cancel(job.id).state == "cancelled"
    with pytest.raises(StateConflictError, match=f"job {job.id}"):
        admin.cancel(job.id)
    again = admin.retry(job.id)
    assert (again.retry_of, again.job) == (job.id, job.job)


def test_what_is_wrong_is_said(admin: Client, service: Service) -> None:
    with pytest.raises(RefusedError, match="slo") as wrong:
        admin.submit(_submission(service, slo={"p99": "40"}))
    assert wrong.value.status == 422
    with pytest.raises(RefusedError, match="budgett.*did you mean 'budget'"):
        admin.submit(_submission(service, budgett="1m"))
    with pytest.raises(NotAllowedError, match="repositories"):
        admin.submit(_submission(service, repository="/etc"))
    with pytest.raises(NotThereError, match="no job 999"):
        admin.job(999)
    with pytest.raises(NotThereError, match="no target 'none'"):
        admin.submit(Submission(target="none"))


def test_roles(client_of: ClientOf, service: Service, admin: Client) -> None:
    job = admin.submit(_submission(service))
    with client_of("read") as reader:
        assert reader.job(job.id).id == job.id
        with pytest.raises(NotAllowedError, match="submit"):
            reader.submit(_submission(service))
        with pytest.raises(NotAllowedError, match="admin"):
            list(reader.tokens())
    with Client(admin.server, "tt_none") as stranger, pytest.raises(TokenRefusedError):
        stranger.job(job.id)


def test_events(admin: Client, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_INDEXED_S", 0.0)  # nobody follows the events here
    job = admin.submit(_submission(service))
    log = _events(service, job.id)
    before = [event.seq for event in admin.events(job.id, follow=False)]
    log.append(Noted, text="one")
    seen: list[int] = []

    def told(event: object) -> None:
        seen.append(event.seq)  # type: ignore[attr-defined]
        if isinstance(event, Noted) and event.text == "one":
            log.append(Noted, text="two")
            log.append(StateChanged, state="cancelled", exit_code=130)

    admin.wait(job.id, told=told)
    assert seen == [*before, *range(len(before) + 1, len(before) + 4)]
    assert [event.seq for event in admin.events(job.id, after=seen[-2])] == seen[-1:]
    with pytest.raises(NotThereError):
        list(admin.events(999))


def test_a_job_that_has_ended_has_no_further_events(admin: Client, service: Service) -> None:
    job = admin.submit(_submission(service))
    last = _events(service, job.id).append(StateChanged, state="cancelled", exit_code=130)
    admin.cancel(job.id)
    assert list(admin.events(job.id, after=last.seq)) == []


def test_trials_front_and_files(admin: Client, service: Service) -> None:
    job = admin.submit(_submission(service))
    view = service.views.of(job.id)
    trials = [Trial(model="mlp", number=number, candidate="x", state="measured") for number in range(3)]
    view.trials[:] = trials  # type: ignore[index]
    view.points = (front_point(1, 100.0, 5.0),)  # type: ignore[attr-defined]
    assert [trial.number for trial in admin.trials(job.id)] == [0, 1, 2]
    assert admin.front(job.id).points[0].trial == 1
    folder = service.jobs_folder / str(job.id) / "run/a model"
    folder.mkdir(parents=True)
    (folder / "front.json").write_bytes(b"{}")
    assert "run/a model/front.json" in {each.path for each in admin.artifacts(job.id)}
    assert admin.artifact(job.id, "run/a model/front.json") == b"{}"
    for path in ("run/../../../service.db", "none", "run/a model"):
        with pytest.raises(RefusedError):
            admin.artifact(job.id, path)


def test_targets_and_schedules(admin: Client, service: Service) -> None:
    spec = TargetSpec(job=submission(service)["job"], description="search")
    target = admin.put_target("search", spec)
    assert (target.version, admin.target("search").description) == (1, "search")
    assert admin.put_target("search", spec, if_version=1).version == 2
    with pytest.raises(StateConflictError):
        admin.put_target("search", spec, if_version=1)
    schedule = admin.put_schedule("nights", ScheduleSpec(cron="30 2 * * *", target="search", timezone="Europe/Berlin"))
    assert schedule.next_at is not None
    assert [each.name for each in admin.schedules()] == ["nights"]
    with pytest.raises(RefusedError, match="cron"):
        admin.put_schedule("other", ScheduleSpec(cron="hourly", target="search"))
    assert admin.submit(Submission(kind="nightly", target="search")).target == "search"
    with pytest.raises(StateConflictError, match="nights"):
        admin.remove_target("search")
    admin.remove_schedule("nights", if_version=schedule.version)
    admin.remove_target("search")
    with pytest.raises(NotThereError):
        admin.target("search")


def _propose(service: Service, job: Job, text: str) -> int:
    """A proposal of a job: another config of its model."""
    config = service.data.parent / "models/mlp/config.pbtxt"
    made = Proposal(
        id=service.store.next_proposal_id(),
        state="open",
        job=job.id,
        repository=str(config.parents[1]),
        model="mlp",
        created_at=job.created_at,
        diff="-a\n+b\n",
    )
    folder = ProposalFolder(JobFolder.of(service.jobs_folder, job.id))
    folder.write_files(made.id, {"mlp/config.pbtxt": text})
    folder.write(ProposalRecord(proposal=made, files={"mlp/config.pbtxt": sha256_of(config)}))
    service.store.add_proposal(made)
    return made.id


def test_proposals(admin: Client, client_of: ClientOf, service: Service) -> None:
    config = service.data.parent / "models/mlp/config.pbtxt"
    config.write_text(MLP)
    better = MLP.replace("max_batch_size: 32", "max_batch_size: 64")
    job = admin.submit(_submission(service))
    first, second = _propose(service, job, better), _propose(service, job, better)
    assert [each.id for each in admin.proposals(state="open", job=job.id)] == [second, first]
    assert admin.proposal(first).diff == "-a\n+b\n"
    assert list(admin.proposals(target="none")) == []
    with client_of("submit") as submitter, pytest.raises(NotAllowedError, match="approve"):
        submitter.approve(first)
    with pytest.raises(StateConflictError):
        admin.approve(first, if_version=7)
    assert admin.reject(second, "too late", if_version=1).reason == "too late"
    assert config.read_text() == MLP
    approved = admin.approve(first, "a test")
    assert (approved.state, approved.decided_by) == ("approved", "admin-0")
    assert config.read_text() == better
    with pytest.raises(StateConflictError, match="approved"):
        admin.reject(first)
    with pytest.raises(NotThereError, match="no proposal 99"):
        admin.approve(99)


def test_hosts_history_and_tokens(admin: Client) -> None:
    (host,) = admin.hosts()
    assert list(admin.hosts_of_job(1)) == []
    assert [slot.name for slot in host.slots] == ["gpu:0"]
    assert list(admin.history(model="mlp", limit=5)) == []
    made = admin.new_token(TokenSpec(name="ci", role="submit"))
    with Client(admin.server, made.secret) as ci:
        assert list(ci.jobs(limit=1))
    assert made.id in {token.id for token in admin.tokens()}
    admin.remove_token(made.id)
    with Client(admin.server, made.secret) as ci, pytest.raises(TokenRefusedError):
        ci.job(1)


def test_names_never_become_other_paths(admin: Client) -> None:
    for name in ("../jobs", "a/b", "a?b", "%2e%2e"):
        with pytest.raises((NotThereError, RefusedError)):
            admin.target(name)
    with pytest.raises(JobError):
        Client(f"{admin.server}/?x=1", "t")


def test_a_file_of_a_job_is_written(admin: Client, service: Service, tmp_path: Path) -> None:
    job = admin.submit(_submission(service))
    (service.jobs_folder / str(job.id) / "job.log").write_text("a line\n")
    (tmp_path / "log").write_bytes(admin.artifact(job.id, "job.log"))
    assert (tmp_path / "log").read_text() == "a line\n"
