from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.builders import MLP, identity, interval, point, space, trial
from support.command_line import await_that
from support.nights import measured, night
from support.stored import T0, job

from tuner.client.resources import Job, JobState, Policy, Proposal
from tuner.config.deploy import JOURNAL
from tuner.config.diff import patch_diff
from tuner.config.patch import Patch, write_patch
from tuner.core.errors import ConfigError, JobError
from tuner.core.loads import Concurrency
from tuner.jobs.event_log import EventLog
from tuner.jobs.events import NightEnded
from tuner.recommend.verification import Verification
from tuner.results.result_files import without_provenance
from tuner.service import endings, proposals
from tuner.service.endings import Endings
from tuner.service.errors import ConflictError, NotFoundError, StoreUnavailableError
from tuner.service.job_folder import JobFolder, SubmissionRecord
from tuner.service.proposal_records import ProposalFolder
from tuner.service.proposals import ProposalDesk
from tuner.service.store.store import Store
from tuner.stats.slo_verdict import SLOTest
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study

NEW = MLP.replace("max_batch_size: 32", "max_batch_size: 64")
OWN, PATCH = Patch(config=MLP), Patch(config=NEW)
PROPOSE = Policy()


class Desk:
    """A data folder, a model repository, and jobs that have ended."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.now = store, T0
        self.jobs = folder / "jobs"
        self.repository = folder / "models"
        (self.repository / "mlp").mkdir(parents=True)
        self.config = self.repository / "mlp/config.pbtxt"
        self.config.write_text(MLP)
        store.clock = self.clock
        self.desk = self.again()

    def clock(self) -> Any:
        self.now += timedelta(seconds=1)
        return self.now

    def again(self) -> ProposalDesk:
        """The desk of a service that was started again."""
        return ProposalDesk(self.store, self.jobs, self.clock)

    def endings(self) -> Endings:
        """What is done for jobs that have ended, by a service that was started again."""
        return Endings(self.store, self.jobs, self.again())

    def job(self, policy: Policy = PROPOSE, **fields: Any) -> tuple[Job, JobFolder]:
        """A job that has succeeded."""
        number = self.store.next_job_id()
        made = self.store.add_job(job(number, **{"state": "succeeded", "models": ("mlp",), "target": "edge", **fields}))
        folder = JobFolder.of(self.jobs, number)
        folder.write(SubmissionRecord(job=made, policy=policy))
        return made, folder

    def tuned(self, *, rate: float = 390, verified: bool = True, policy: Policy = PROPOSE, **about: Any) -> Job:
        """A tuning job whose candidate has 3.9 times the throughput."""
        made, folder = self.job(policy)
        built = space()
        folder.run.mkdir()
        study = Study.create_or_resume(
            folder.run / "study.db", identity(**{"repository": str(self.repository), **about})
        )
        better = built.normalize({"dynamic_batching": "on", "max_batch_size": 64})
        study.add(trial(0, point(1, 100, 10), point(2, 100, 20), parameters=built.baseline), built)
        config = built.candidate(better).config.text
        study.add(trial(1, point(8, rate, 20), parameters=better, config=config), built)
        test = SLOTest(percentile="p99", limit_ms=25.0, requests=5_000, over=1, design_effect=2.0)
        for number, load, throughput in ((0, 2, 100.0), (1, 8, rate)) if verified else ():
            rounds = tuple(point(load, throughput + n, 20).model_copy(update={"limits": (test,)}) for n in range(3))
            study.add_verified([Verification(trial=number, load=Concurrency(load), rounds=rounds, numbers=(1, 2, 3))])
        return made

    def night(self, patch: Patch = PATCH, before: Patch = OWN, **about: Any) -> Job:
        """A night that has proposed a config of the model `mlp`."""
        made, folder = self.job(kind="nightly")
        place = folder.data / f"nightly/edge/nights/{made.id}/models/mlp"
        write_patch(place / "improved", "mlp", patch)
        (place / "improved/config.diff").write_text(patch_diff(before, patch, "mlp"))
        better = measured(130.0, 12.0, latency_ms={"p99": interval(12.0)})
        told = {
            "improvement": better,
            "outcome": "improved",
            "reason": "1.30 x the throughput",
            "gain": interval(1.3),
            "folder": str(place),
        }
        result = night(**{"repository": str(self.repository), **told, **about})
        EventLog(folder.path).append(NightEnded, model="mlp", night=result.model_dump(mode="json"))
        return made

    def proposed(self) -> Proposal:
        """The one proposal of a tuning job."""
        (proposal,) = self.desk.of_job(self.tuned())
        return proposal

    def record(self, proposal: Proposal) -> Proposal:
        """The proposal as its file tells it."""
        return ProposalFolder(JobFolder.of(self.jobs, proposal.job)).read(proposal.id).proposal

    @property
    def deployed(self) -> str:
        return self.config.read_text()

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in (self.repository / "mlp").iterdir())


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Store.opened(f"sqlite:///{tmp_path}/service.db") as store:
        yield Desk(store, tmp_path)


def test_a_verified_gain_of_a_tuning_job_is_proposed(desk: Desk) -> None:
    made = desk.tuned()
    (proposal,) = desk.desk.of_job(made)
    assert (proposal.id, proposal.state, proposal.job, proposal.target) == (1, "open", made.id, "edge")
    assert (proposal.model, proposal.repository) == ("mlp", str(desk.repository))
    assert "-max_batch_size: 32" in proposal.diff
    assert "+max_batch_size: 64" in proposal.diff
    assert proposal.gain
    assert proposal.gain.low > 3
    assert proposal.throughput
    assert proposal.throughput.value == pytest.approx(391, rel=0.01)
    assert proposal.latency_ms
    assert proposal.percentile == "p99"
    assert proposal.verified
    assert "3.9" in proposal.evidence
    assert desk.store.proposals().items == (proposal,)
    assert desk.record(proposal) == proposal
    assert desk.deployed == MLP


def test_asked_again_it_proposes_nothing_more(desk: Desk) -> None:
    made = desk.tuned()
    first = desk.desk.of_job(made)
    assert desk.desk.of_job(made) == desk.again().of_job(made) == first
    assert len(desk.store.proposals().items) == 1


@pytest.mark.parametrize(
    "about",
    [{"verified": False}, {"rate": 101}, {"policy": Policy(min_gain=4.0)}, {"repository": "grpc://host:8001"}],
)
def test_what_is_no_proven_gain_is_not_proposed(desk: Desk, about: dict[str, Any]) -> None:
    assert desk.desk.of_job(desk.tuned(**about)) == ()
    assert desk.store.proposals().items == ()


@pytest.mark.parametrize(("state", "count"), [("failed", 1), ("cancelled", 0), ("lost", 0), ("running", 0)])
def test_a_job_of_which_another_model_failed_has_proposals(desk: Desk, state: JobState, count: int) -> None:
    made = desk.tuned()
    assert len(desk.desk.of_job(made.model_copy(update={"state": state}))) == count


@pytest.mark.parametrize("fields", [{"kind": "measure"}, {"kind": "tune"}, {"kind": "nightly"}])
def test_a_job_without_results_proposes_nothing(desk: Desk, fields: dict[str, Any]) -> None:
    made, _ = desk.job(**fields)
    assert desk.desk.of_job(made) == ()


def test_a_night_s_proposal_is_shown_with_what_a_person_must_set(desk: Desk) -> None:
    patch = Patch(config=NEW, server_args={"--pinned-memory-pool-byte-size": "0"}, env={"OMP_NUM_THREADS": "2"})
    (proposal,) = desk.desk.of_job(desk.night(patch))
    assert proposal.evidence == "1.30 x the throughput"
    assert proposal.gain == interval(1.3)
    assert (proposal.throughput, proposal.latency_ms, proposal.percentile) == (interval(130.0), interval(12.0), "p99")
    assert proposal.to_set == (
        "start tritonserver with --pinned-memory-pool-byte-size=0",
        "set the environment variable OMP_NUM_THREADS=2",
    )
    assert "+max_batch_size: 64" in proposal.diff
    assert "# variable OMP_NUM_THREADS: not set -> 2" in proposal.diff
    desk.desk.approve(proposal.id, "alice")
    assert desk.deployed == NEW


def test_of_a_resumed_night_the_last_result_counts(desk: Desk) -> None:
    """Also if it is that nothing is better."""
    made = desk.night()
    events = EventLog(JobFolder.of(desk.jobs, made.id).path)
    kept = night(repository=str(desk.repository), folder="/another")
    events.append(NightEnded, model="mlp", night=kept.model_dump(mode="json"))
    assert desk.desk.of_job(made) == ()


def test_what_a_night_has_deployed_or_what_is_outdated_is_not_proposed(desk: Desk) -> None:
    desk.config.write_text(NEW)
    assert desk.desk.of_job(desk.night()) == ()
    desk.config.write_text(MLP.replace("32", "16"))
    assert desk.desk.of_job(desk.night()) == ()
    assert desk.desk.of_job(desk.night(folder="/gone")) == ()


def test_approving_deploys_with_a_backup_and_says_who_and_when(desk: Desk) -> None:
    proposal = desk.proposed()
    decided = desk.desk.approve(proposal.id, "alice", "looks good", if_version=1)
    assert "max_batch_size: 64" in desk.deployed
    assert desk.deployed.startswith("# tritontune: trial 1 of 2 for model mlp\n")
    (backup,) = desk.repository.glob("mlp/config.pbtxt.bak-*")
    assert backup.read_text() == MLP
    assert (decided.state, decided.decided_by, decided.version) == ("approved", "alice", 2)
    assert decided.decided_at == desk.now
    assert decided.reason == f"looks good; deployed: mlp/config.pbtxt (backup: {backup.name})"
    assert desk.store.proposal(proposal.id) == desk.record(proposal) == decided


def test_a_second_decision_is_a_conflict(desk: Desk) -> None:
    proposal = desk.proposed()
    desk.desk.approve(proposal.id, "alice")
    deployed = desk.files
    for decide in (desk.desk.approve, desk.desk.reject):
        with pytest.raises(ConflictError, match="proposal 1 is approved by alice, not open"):
            decide(proposal.id, "bob")
    assert desk.files == deployed
    with pytest.raises(NotFoundError, match="no proposal 9"):
        desk.desk.approve(9, "bob")


def test_a_decision_on_another_version_is_a_conflict(desk: Desk) -> None:
    proposal = desk.proposed()
    with pytest.raises(ConflictError, match="has version 1, not 2"):
        desk.desk.approve(proposal.id, "alice", if_version=2)
    assert desk.deployed == MLP


def test_rejecting_changes_no_file(desk: Desk) -> None:
    proposal = desk.proposed()
    decided = desk.desk.reject(proposal.id, "bob", "not now")
    assert (decided.state, decided.decided_by, decided.reason) == ("rejected", "bob", "not now")
    assert desk.record(proposal) == decided
    assert (desk.deployed, desk.files) == (MLP, ["config.pbtxt"])


def test_a_night_does_not_propose_again_what_was_rejected(desk: Desk) -> None:
    (first,) = desk.desk.of_job(desk.night())
    desk.desk.reject(first.id, "bob", "not now")
    assert desk.desk.of_job(desk.night()) == ()
    # A model of the same name in another repository is another one.
    elsewhere = first.model_copy(update={"id": first.id + 100, "repository": "/elsewhere", "state": "approved"})
    desk.store.add_proposal(elsewhere)
    assert desk.desk.of_job(desk.night()) == ()
    other = Patch(config=NEW, env={"OMP_NUM_THREADS": "2"})
    (second,) = desk.desk.of_job(desk.night(other))
    assert second.state == "open"
    # A person who tunes it again wants to see it.
    (third,) = desk.desk.of_job(desk.tuned())
    assert third.state == "open"


@pytest.mark.parametrize(("text", "how"), [("# by hand\n", "has changed"), (None, "is gone")])
def test_it_is_withdrawn_when_the_deployed_files_have_changed(desk: Desk, text: str | None, how: str) -> None:
    proposal = desk.proposed()
    if text is None:
        desk.config.unlink()
    else:
        desk.config.write_text(text)
    before = desk.files
    why = f"mlp/config.pbtxt {how} since job 1 measured it"
    with pytest.raises(ConflictError, match=f"proposal 1: withdrawn: {why}; nothing was changed"):
        desk.desk.approve(proposal.id, "alice")
    assert desk.files == before
    now = desk.store.proposal(proposal.id)
    assert (now.state, now.reason, now.decided_by) == ("withdrawn", why, None)


def test_without_the_repository_nothing_is_decided(desk: Desk) -> None:
    proposal = desk.proposed()
    desk.repository.rename(desk.repository.with_name("unmounted"))
    with pytest.raises(ConflictError, match="no model repository at .*; nothing was changed"):
        desk.desk.approve(proposal.id, "alice")
    assert desk.again().catch_up() == []
    assert desk.store.proposal(proposal.id).state == "open"


def test_a_newer_proposal_of_the_model_withdraws_the_older(desk: Desk) -> None:
    first = desk.proposed()
    second = desk.proposed()
    now = desk.store.proposal(first.id)
    assert (now.state, now.reason) == ("withdrawn", "proposal 2 is newer")
    assert desk.record(first) == now
    assert desk.store.proposal(second.id).state == "open"


def test_files_are_deployed_all_or_none(desk: Desk) -> None:
    model = desk.repository / "mlp/1/model.json"
    model.parent.mkdir()
    model.write_text("{}")
    before = Patch(config=MLP, files={"mlp/1/model.json": "{}"})
    (proposal,) = desk.desk.of_job(desk.night(Patch(config=NEW, files={"mlp/1/model.json": '{"n": 1}'}), before))
    model.write_text("by hand")
    with pytest.raises(ConflictError, match=r"mlp/1/model.json has changed since"):
        desk.desk.approve(proposal.id, "alice")
    assert desk.deployed == MLP
    model.write_text("{}")
    (proposal,) = desk.desk.of_job(desk.night(Patch(config=NEW, files={"mlp/1/model.json": '{"n": 1}'}), before))
    decided = desk.desk.approve(proposal.id, "alice")
    assert (desk.deployed, model.read_text()) == (NEW, '{"n": 1}')
    assert decided.reason.count("backup: ") == 2


def test_a_file_that_cannot_be_written_leaves_it_open(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    proposal = desk.proposed()

    def full(*_: object) -> None:
        raise ConfigError("config.pbtxt: cannot be written: No space left on device")

    monkeypatch.setattr(proposals, "replace_files", full)
    with pytest.raises(ConflictError, match="proposal 1: config.pbtxt: cannot be written: No space left"):
        desk.desk.approve(proposal.id, "alice")
    assert desk.record(proposal) == desk.store.proposal(proposal.id) == proposal
    monkeypatch.undo()
    assert desk.desk.approve(proposal.id, "alice").state == "approved"


def test_with_the_policy_apply_a_tuning_job_deploys_at_once(desk: Desk) -> None:
    (proposal,) = desk.desk.of_job(desk.tuned(policy=Policy(action="apply")))
    assert (proposal.state, proposal.decided_by) == ("approved", "the target's policy")
    assert "max_batch_size: 64" in desk.deployed


def test_a_path_that_leads_out_of_the_repository_is_refused(desk: Desk, tmp_path: Path) -> None:
    proposal = desk.proposed()
    folder = ProposalFolder(JobFolder.of(desk.jobs, proposal.job))
    record = folder.read(proposal.id)
    for path in ("../outside", "/etc/outside", "a/../../outside", ""):
        folder.write(record.model_copy(update={"files": {path: None}}))
        with pytest.raises(ConflictError, match="is not a path within a model repository"):
            desk.desk.approve(proposal.id, "alice")
        with pytest.raises(JobError, match="is not a path within"):
            folder.write_files(proposal.id, {path: "x"})
    assert not (tmp_path / "outside").exists()


def test_the_start_catches_up_with_what_was_left_undone(desk: Desk) -> None:
    """A job that ended while no service ran, a row that was not written, and files that were changed by hand."""
    ended = desk.tuned()
    assert desk.endings().catch_up() == []
    proposal = desk.store.proposals().items[0]
    assert proposal.job == ended.id
    decided = desk.desk.reject(proposal.id, "bob")
    desk.store.store_proposal(proposal)  # as if the service was killed before it wrote the row
    assert desk.endings().catch_up() == []
    assert desk.store.proposal(proposal.id) == decided
    other = desk.proposed()
    desk.config.write_text("changed by hand")
    assert desk.endings().catch_up() == [
        f"proposal {other.id}: withdrawn: mlp/config.pbtxt has changed since job 2 measured it"
    ]


def test_a_job_that_has_ended_is_looked_at_once(desk: Desk) -> None:
    ended, endings = desk.tuned(), desk.endings()
    with endings.running():
        endings.job_ended(ended.id)
    assert len(desk.store.proposals().items) == 1
    RunFolder(JobFolder.of(desk.jobs, ended.id).run).database.write_bytes(b"not read again" * 1000)
    assert desk.endings().catch_up() == []


def test_while_the_database_is_away_it_is_tried_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings, "_AGAIN_S", 0.05)
    ended, second = desk.tuned(), desk.tuned()
    made, away, of_job = desk.endings(), [3], desk.desk.of_job

    def failing(job: Job) -> tuple[Proposal, ...]:
        if away[0]:
            away[0] -= 1
            raise StoreUnavailableError("database x: refused")
        return of_job(job)

    monkeypatch.setattr(made._desk, "of_job", failing)
    with made.running():
        made.job_ended(ended.id)
        await_that(lambda: len(desk.store.proposals().items) == 2)
    assert {each.job for each in desk.store.proposals().items} == {ended.id, second.id}


def test_what_a_person_has_deployed_is_withdrawn(desk: Desk) -> None:
    proposal = desk.proposed()
    desk.config.write_bytes((JobFolder.of(desk.jobs, 1).path / "proposals/1/mlp/config.pbtxt").read_bytes())
    assert desk.again().catch_up() == ["proposal 1: withdrawn: its files are deployed"]
    assert desk.store.proposal(proposal.id).state == "withdrawn"


def test_damaged_files_are_told_and_leave_the_rest(desk: Desk) -> None:
    broken, study = desk.proposed(), desk.tuned()
    (JobFolder.of(desk.jobs, broken.job).path / "proposals/1.json").write_text("{")
    RunFolder(JobFolder.of(desk.jobs, study.id).run).database.write_bytes(b"no database" * 1000)
    other, folder = desk.job()
    folder.submission.unlink()
    told = desk.endings().catch_up()
    assert any(line.startswith("proposal 1: ") and "1.json" in line for line in told)
    assert any(line.startswith(f"job {other.id}: no proposals: ") for line in told)
    with pytest.raises(ConflictError, match="proposal 1: .*1.json: .*"):
        desk.desk.approve(broken.id, "alice")


KILLED = """
import os, signal, sys
from pathlib import Path
from tuner.service import endings, proposals
from tuner.service.store.store import Store
from tuner.config import deploy

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

data, where = Path(sys.argv[1]), sys.argv[2]
with Store.opened(f"sqlite:///{data}/service.db") as store:
    desk = proposals.ProposalDesk(store, data / "jobs")
    if where == "before":
        proposals.replace_files = kill
    elif where == "midway":
        rename, count = deploy._Swap.rename, []
        def one(swap):
            count.append(rename(swap))
            kill()
        deploy._Swap.rename = one
    else:
        proposals.ProposalDesk._decide = kill
    desk.approve(1, "alice", "go")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("where", "finished"), [("before", False), ("midway", True), ("after", True)])
def test_the_next_start_finishes_what_a_killed_service_began(
    desk: Desk,
    tmp_path: Path,
    where: str,
    finished: bool,  # noqa: FBT001 (of a table)
) -> None:
    model = desk.repository / "mlp/1/model.json"
    model.parent.mkdir()
    model.write_text("{}")
    before = Patch(config=MLP, files={"mlp/1/model.json": "{}"})
    (proposal,) = desk.desk.of_job(desk.night(Patch(config=NEW, files={"mlp/1/model.json": '{"n": 1}'}), before))
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), where], check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert (desk.repository / JOURNAL).exists() == (where == "midway")
    assert desk.store.proposal(proposal.id).state == "open"
    (line,) = desk.again().catch_up()
    now = desk.store.proposal(proposal.id)
    assert desk.record(proposal) == now
    contents = (desk.deployed, model.read_text())
    if finished:
        assert line == "proposal 1: its deployment was interrupted, and is finished"
        assert contents == (NEW, '{"n": 1}')
        assert (now.state, now.decided_by) == ("approved", "alice")
        assert now.reason == "go; deployed: mlp/config.pbtxt, mlp/1/model.json"
        assert not (desk.repository / JOURNAL).exists()
    else:
        assert line == "proposal 1: its deployment was interrupted before it had begun; it is open"
        assert contents == (MLP, "{}")
        assert now.state == "open"
        assert desk.desk.approve(proposal.id, "alice").state == "approved"


def test_the_proposed_config_is_that_of_export(desk: Desk) -> None:
    """It has a comment on its provenance, and else only the changed fields differ."""
    proposal = desk.proposed()
    desk.desk.approve(proposal.id, "alice")
    assert without_provenance(desk.deployed) != desk.deployed
    changed = {*without_provenance(desk.deployed).splitlines()} ^ {*MLP.splitlines()}
    assert "backend" not in " ".join(changed)
