"""Jobs of the service that find a better config on a Triton: proposed, approved and deployed."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from support.rough import rough_measurements

from tuner.client.resources import Job, JobKind, Proposal
from tuner.config.config import ModelConfig
from tuner.jobs import model_tuning
from tuner.jobs.event_log import EventLog
from tuner.jobs.events import StateChanged
from tuner.measure import meter
from tuner.measure.rules import LevelRules
from tuner.nightly import model_night
from tuner.service.active_job import ActiveJob
from tuner.service.endings import Endings
from tuner.service.histories import Histories
from tuner.service.job_folder import JobFolder, SubmissionRecord
from tuner.service.place import Place
from tuner.service.proposals import ProposalDesk
from tuner.service.run_work import run
from tuner.service.store.store import Store
from tuner.testing.repositories import ModelRepositoryFactory, config_text

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500), pytest.mark.usefixtures("fake_on_path", "short_and_alone")]


class Service:
    """What the service does of a job, in this process."""

    def __init__(self, store: Store, data: Path, repository: Path) -> None:
        self.store, self.jobs, self.repository = store, data / "jobs", repository
        self.config = repository / "slow/config.pbtxt"
        self.desk = ProposalDesk(store, self.jobs)
        self.histories = Histories(data / "nightly/history.db", store)

    def run(self, kind: JobKind, **options: Any) -> Job:
        """Run a job to its end. An execution of the model takes 20 ms, however many requests are in it."""
        folder = JobFolder.of(self.jobs, self.store.next_job_id())
        asked = {
            "repository": str(self.repository),
            "slo": {"p50": "5s"},
            "budget": "1h",
            "trials": 2,
            "max_concurrency": 4,
            "precision": "10%,30%",
            "seed": 7,
            "space": str(self.jobs.parent / "space.yaml"),
            **options,
        }
        job = Job(id=folder.id, kind=kind, state="queued", created_at=datetime.now(timezone.utc), job=asked)
        folder.write(SubmissionRecord(job=job))
        EventLog(folder.path).append(StateChanged, state="starting", host="here")
        active = ActiveJob(folder, self.store.add_job(job))
        run(folder, Place())
        active.look()
        active.store_in(self.store)
        Endings(self.store, self.jobs, self.desk).do(folder.id)
        return self.store.job(folder.id)

    def approved(self, job: Job) -> Proposal:
        """Approve the one proposal of a job."""
        (proposal,) = self.store.proposals().items
        assert (proposal.state, proposal.job, proposal.model) == ("open", job.id, "slow")
        assert proposal.gain
        assert proposal.gain.low > 1.03
        assert proposal.verified
        assert proposal.throughput
        assert proposal.latency_ms
        assert proposal.percentile == "p50"
        assert "+dynamic_batching" in proposal.diff
        before = self.config.read_text()
        assert not ModelConfig.read(self.config).holds("dynamic_batching")
        decided = self.desk.approve(proposal.id, "alice")
        assert ModelConfig.read(self.config).holds("dynamic_batching")
        assert "# mine" in self.config.read_text()
        (backup,) = self.config.parent.glob("config.pbtxt.bak-*")
        assert backup.read_text() == before
        return decided


@pytest.fixture
def short_and_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Levels are short, launches few, and nothing is known of what else this machine does."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("{}"))
    short = LevelRules(min_s=0.1, max_s=0.1)
    monkeypatch.setattr(meter, "machine_load", lambda *_, **__: None)
    monkeypatch.setattr(meter, "machine_speed", lambda *_, **__: None)
    with rough_measurements(min_s=0.1, max_s=0.1):
        monkeypatch.setattr(model_tuning, "_SWEEP_RULES", short)
        monkeypatch.setattr(model_night, "_RULES", short)
        monkeypatch.setattr(model_night, "_CANDIDATE_RULES", short)
        monkeypatch.setattr(model_night, "_MOST_LAUNCHES", model_night._LAUNCHES)
        yield


@pytest.fixture
def service(tmp_path: Path, model_repository: ModelRepositoryFactory) -> Iterator[Service]:
    text = config_text(max_batch_size=16, more="# mine").replace('backend: "python"', 'backend: "fake"')
    model_repository.add_known("slow", text)
    (model_repository.path / "slow/1/model.fake").write_text(
        'parameters { key: "service_us" value { string_value: "20000" } }\n'
    )
    data = tmp_path / "data"
    data.mkdir()
    # Two candidates in all.
    (data / "space.yaml").write_text("schema: 1\nparameters:\n  dynamic_batching: {ladder: [off, on]}\n")
    with Store.opened(f"sqlite:///{data}/service.db") as store:
        yield Service(store, data, model_repository.path)


def test_a_tuning_job(service: Service) -> None:
    job = service.run("tune")
    assert (job.state, job.exit_code) == ("succeeded", 0), job.reason
    assert "trial 1" in service.approved(job).evidence


def test_a_night(service: Service) -> None:
    job = service.run("nightly", verify=False)
    assert (job.state, job.exit_code) == ("succeeded", 10), job.reason
    assert "x the throughput" in service.approved(job).evidence
    (entry,) = service.histories.nights().items
    assert (entry.outcome, entry.model) == ("improved", "slow")
    assert entry.action.startswith("proposed in ")
