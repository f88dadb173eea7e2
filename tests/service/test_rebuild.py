from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.stored import T0, job, proposal, schedule, target, token

from tuner.client.resources import FINAL, Job, ProposalState
from tuner.core.atomic_file import write_atomically
from tuner.jobs.event_log import EventLog
from tuner.jobs.events import ModelBegan, PhaseBegan, StateChanged, TrialBegan, TrialEnded
from tuner.service.active_job import ActiveJob
from tuner.service.errors import ConflictError, NotFoundError
from tuner.service.job_folder import JobFolder, SubmissionKey, SubmissionRecord
from tuner.service.proposal_records import ProposalFolder, ProposalRecord
from tuner.service.rebuild import prepare_index
from tuner.service.store.jobs import StoredJob
from tuner.service.store.pages import every
from tuner.service.store.store import Store


class History:
    """A service with a history: whatever happens is written into the folders, and into the rows."""

    def __init__(self, store: Store, data: Path, seed: int = 0) -> None:
        self.store, self.data = store, data
        self.jobs = data / "jobs"
        self.chance = random.Random(seed)  # noqa: S311 (no secret)
        self.now = T0
        store.clock = lambda: self.now
        self.active: dict[int, ActiveJob] = {}
        self.open: list[ProposalRecord] = []

    def submit(self, **fields: Any) -> int:
        number = self.store.next_job_id()
        key = SubmissionKey("id-ci", f"key-{number}", "d" * 64) if self.chance.random() < 0.5 else None
        made = job(number, models=("mlp",), priority=self.chance.randint(-2, 2), created_at=self.now, **fields)
        folder = JobFolder.of(self.jobs, number)
        folder.write(SubmissionRecord(job=made, key=key))
        EventLog(folder.path).append(StateChanged, state="queued")
        self.active[number] = ActiveJob(folder, self.store.add_job(made, key))
        return number

    def tell(self, number: int, *events: tuple[type, dict[str, Any]]) -> None:
        """Write events of a job, and bring its row up to date."""
        for kind, fields in events:
            EventLog(JobFolder.of(self.jobs, number).path).append(kind, **fields)
        active = self.active[number]
        active.look()
        active.store_in(self.store)
        if active.state in FINAL:
            del self.active[number]

    def propose(self, number: int) -> None:
        made = proposal(self.store.next_proposal_id(), job=number, target="t1", created_at=self.now)
        record = ProposalRecord(proposal=made, files={})
        ProposalFolder(JobFolder.of(self.jobs, number)).write(record)
        self.store.add_proposal(made)
        self.open.append(record)

    def decide(self, state: ProposalState) -> None:
        record = self.open.pop()
        decided = record.proposal.model_copy(update={"state": state, "decided_by": "alice", "version": 2})
        ProposalFolder(JobFolder.of(self.jobs, decided.job)).write(record.model_copy(update={"proposal": decided}))
        self.store.store_proposal(decided)

    def happen(self) -> None:
        """Let anything happen."""
        self.now += timedelta(minutes=1)
        number = self.chance.choice([0, *self.active])
        state = self.active[number].state if number else None
        name = f"t{self.chance.randint(1, 3)}"
        what = self.chance.randrange(8)
        if what == 0 or state is None:
            self.submit(target=name, kind=self.chance.choice(["tune", "nightly"]))
        elif what <= 4:
            self.configure(name, number, what)
        elif what == 5 and state == "running":
            self.propose(number)
        elif what == 6 and self.open:
            self.decide(self.chance.choice(["approved", "rejected", "withdrawn"]))
        elif state == "queued":
            self.tell(number, (StateChanged, {"state": "starting", "host": "h", "slots": ("gpu:0",)}))
        elif state == "starting":
            self.tell(number, (StateChanged, {"state": "running"}), (PhaseBegan, {"phase": "search"}), _BEGAN)
        else:
            ends: list[Any] = [(StateChanged, {"state": end, "exit_code": 1, "reason": "so"}) for end in sorted(FINAL)]
            again = (StateChanged, {"state": "queued", "attempt": 2, "reason": "lost; resuming"})
            self.tell(number, self.chance.choice([_trial(number), *ends, again]))

    def configure(self, name: str, number: int, what: int) -> None:
        """Change targets and schedules."""
        if what == 1:
            self.store.put_target(name, target(description=str(self.now)))
        elif what == 2:
            self.store.put_target(name, target())
            self.store.put_schedule(f"of-{name}", schedule("*/5 * * * *", target=name))
        elif what == 3:
            for due in self.store.due_schedules(self.now):
                self.store.advance_schedule(due, next_at=self.now + timedelta(hours=1), last_job=number, note="x")
        else:
            try:
                self.store.remove_target(name)
            except ConflictError:
                self.store.remove_schedule(f"of-{name}")
            except NotFoundError:
                return

    def snapshot(self) -> dict[str, Any]:
        """All that a user sees, but for versions of jobs and what a queued job waits for."""
        store = self.store
        return {
            "jobs": [_comparable(each) for each in every(store.jobs)],
            "queue": [each.id for each in store.queued()],
            "active": [StoredJob(_comparable(each.job), each.lease) for each in store.active()],
            "targets": list(every(store.targets)),
            "schedules": list(every(store.schedules)),
            "proposals": list(every(store.proposals)),
        }


_BEGAN = (
    ModelBegan,
    {"model": "mlp", "slo": "p99 <= 25 ms", "percentile": "p99", "objective": "throughput", "budget_s": 60.0},
)


def _trial(number: int) -> tuple[type, dict[str, Any]]:
    about = {"model": "mlp", "trial": number, "candidate": "c", "parameters": {}, "points": (), "wall_s": 1.0}
    return TrialEnded, about


def _comparable(each: Job) -> Job:
    changes: dict[str, Any] = {"version": 1}
    if each.state == "queued":
        changes["reason"] = ""
    return each.model_copy(update=changes)


@contextmanager
def history(folder: Path, seed: int = 0) -> Iterator[History]:
    with Store.opened(f"sqlite:///{folder}/service.db", data=folder) as store:
        yield History(store, folder, seed)


@pytest.mark.slow
@given(seed=st.integers(0, 10_000))
@settings(max_examples=5, deadline=None)
def test_a_database_made_anew_equals_the_one_before(seed: int) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        with history(folder, seed) as past:
            for _ in range(60):
                past.happen()
            before = past.snapshot()
            numbers = (past.store.next_job_id(), past.store.next_proposal_id())
        for file in folder.glob("service.db*"):
            file.unlink()
        with history(folder) as now:
            lines = prepare_index(now.store, folder)
            assert now.snapshot() == before
            assert [line for line in lines if "left out" in line] == []
            # Again it changes nothing.
            prepare_index(now.store, folder, anew=True)
            assert now.snapshot() == before
            # Numbers of what exists are not given out again.
            highest = (max([0, *(each.id for each in before["jobs"])]), max([0, *(p.id for p in before["proposals"])]))
            again = (now.store.next_job_id(), now.store.next_proposal_id())
            assert all(before_ >= now_ > high for before_, now_, high in zip(numbers, again, highest, strict=True))


def test_tokens_and_keys_stay(tmp_path: Path) -> None:
    with history(tmp_path) as past:
        past.store.add_token(token("ci"), "d" * 64)
        past.chance = random.Random(1)  # noqa: S311 (no secret)
        number = past.submit()
        key = JobFolder.of(past.jobs, number).read().key
        assert key
        assert prepare_index(past.store, tmp_path, anew=True) == [
            "index made anew: 1 job, 0 targets, 0 schedules, 0 proposals"
        ]
        assert past.store.tokens().items == (token("ci"),)
        assert (past.store.job_of_key(key) or job()).id == number


def test_the_lease_of_a_running_job_comes_back(tmp_path: Path) -> None:
    lease = f"{'a' * 8}{'b' * 8}-f00-12-345"
    with history(tmp_path) as past:
        past.submit()
        past.tell(1, (StateChanged, {"state": "starting", "host": "h"}), (StateChanged, {"state": "running"}))
        JobFolder.of(past.jobs, 1).lease_file.write_text(lease)
        prepare_index(past.store, tmp_path, anew=True)
        (active,) = past.store.active()
        assert (active.job.state, active.lease) == ("running", lease)


def test_an_empty_database_is_filled_at_the_start_and_says_so(tmp_path: Path) -> None:
    with history(tmp_path) as past:
        assert prepare_index(past.store, tmp_path) == []
        for _ in range(2):
            past.submit()
        assert prepare_index(past.store, tmp_path) == []
    (tmp_path / "service.db").unlink()
    with history(tmp_path) as now:
        assert prepare_index(now.store, tmp_path) == [
            "index made anew: 2 jobs, 0 targets, 0 schedules, 0 proposals; the database was empty"
        ]


def test_what_a_killed_service_did_not_index_is_added(tmp_path: Path) -> None:
    with history(tmp_path) as past:
        past.submit()
        past.store.put_target("t1", target())
        past.store.put_target("t2", target())
        # Killed between the folder and the row of a job and a proposal, and between the row and the copy of a target.
        JobFolder.of(past.jobs, 2).write(SubmissionRecord(job=job(2)))
        ProposalFolder(JobFolder.of(past.jobs, 1)).write(ProposalRecord(proposal=proposal(7), files={}))
        (tmp_path / "targets/t1.json").unlink()
        (tmp_path / "targets/gone.json").write_text("{}")
        assert prepare_index(past.store, tmp_path) == ["job 2: added to the index", "proposal 7: added to the index"]
        assert past.store.job(2).state == "queued"
        assert past.store.proposal(7).state == "open"
        assert sorted(path.name for path in (tmp_path / "targets").iterdir()) == ["t1.json", "t2.json"]
        assert prepare_index(past.store, tmp_path) == []


def test_damaged_folders_are_named_and_left_out(tmp_path: Path) -> None:
    with history(tmp_path) as past:
        for _ in range(5):
            past.submit()
        past.store.put_target("t1", target())
        past.store.put_target("t2", target())
        past.store.put_schedule("of-t1", schedule(target="t1"))
        past.store.put_schedule("of-t2", schedule(target="t2"))
        past.propose(1)
        past.propose(2)
        before = past.snapshot()
    (tmp_path / "jobs/2/submission.json").write_text('{"schema_version": 1')
    (tmp_path / "jobs/3/submission.json").unlink()
    (tmp_path / "jobs/4/submission.json").write_bytes((tmp_path / "jobs/5/submission.json").read_bytes())
    (tmp_path / "jobs/5/events.jsonl").write_bytes(b'not an event\n{"seq":1,"type":"state"\n\xff\xff')
    (tmp_path / "jobs/9").mkdir()
    (tmp_path / "jobs/1/proposals/1.json").write_text("[]")
    (tmp_path / "targets/t1.json").write_text("{}")
    write_atomically(tmp_path / "jobs/README", "not a job")
    with history(tmp_path) as now:
        *lines, summary = prepare_index(now.store, tmp_path, anew=True)
        assert summary == "index made anew: 2 jobs, 1 target, 1 schedule, 1 proposal"
        told = [line.partition(": ")[0] for line in lines]
        assert sorted(told) == ["job 2", "job 3", "job 4", "job 9", "proposal 1", "schedule of-t1", "target t1"]
        assert all("left out" in line and "\n" not in line for line in lines)
        assert [each.id for each in now.store.jobs().items] == [5, 1]
        assert [each.id for each in now.store.proposals().items] == [2]
        assert [each.name for each in now.store.targets().items] == ["t2"]
        assert now.snapshot()["jobs"] == [each for each in before["jobs"] if each.id in {1, 5}]
        assert now.store.next_job_id() == 10


def test_two_folders_with_one_key_are_both_kept(tmp_path: Path) -> None:
    key = SubmissionKey("id-ci", "once", "d" * 64)
    with history(tmp_path) as past:
        for number in (1, 2):
            JobFolder.of(past.jobs, number).write(SubmissionRecord(job=job(number), key=key))
        prepare_index(past.store, tmp_path, anew=True)
        assert [each.id for each in past.store.jobs().items] == [2, 1]
        assert (past.store.job_of_key(key) or job(9)).id == 1


def test_a_running_job_has_its_progress(tmp_path: Path) -> None:
    with history(tmp_path) as past:
        past.submit()
        past.tell(1, (StateChanged, {"state": "starting", "host": "h"}), (StateChanged, {"state": "running"}), _BEGAN)
        past.tell(1, (TrialBegan, {"model": "mlp", "trial": 0, "candidate": "c"}), _trial(0))
        prepare_index(past.store, tmp_path, anew=True)
        found = past.store.job(1)
        assert (found.progress.trials, found.progress.budget_s) == (1, 60.0)
        assert [each.model for each in found.results] == ["mlp"]


@pytest.mark.parametrize("how", ["backup", "vacuum", "at rest"])
def test_a_copy_of_the_folder_shows_the_same(tmp_path: Path, how: str) -> None:
    """The database by SQLite's backup or VACUUM INTO while the service runs, or the folder at rest."""
    data, copy = tmp_path / "data", tmp_path / "copy"
    with history(data, 3) as past:
        past.store.add_token(token("ci"), "d" * 64)
        for _ in range(40):
            past.happen()
        before = past.snapshot()
        if how != "at rest":
            shutil.copytree(data, copy, ignore=shutil.ignore_patterns("service.db*"))
            source = sqlite3.connect(f"file:{data}/service.db?mode=ro", uri=True)
            if how == "vacuum":
                source.execute("VACUUM INTO ?", (str(copy / "service.db"),))
            else:
                with sqlite3.connect(copy / "service.db") as backup:
                    source.backup(backup)
                backup.close()
            source.close()
    if how == "at rest":
        shutil.copytree(data, copy)
    with history(copy) as now:
        assert prepare_index(now.store, copy) == []
        assert now.snapshot() == before
        assert now.store.tokens().items == (token("ci"),)
        assert now.store.next_job_id() == before["jobs"][0].id + 1
