"""Makes the index of the database from the folders, which are the truth."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from tuner.client.resources import Proposal
from tuner.core.errors import JobError
from tuner.service.active_job import ActiveJob
from tuner.service.job_folder import JobFolder, SubmissionKey
from tuner.service.proposal_records import ProposalFolder
from tuner.service.store.copies import Copies, Named, schedule_copies, target_copies
from tuner.service.store.index import Index, IndexedJob
from tuner.service.store.store import Store


def prepare_index(store: Store, data: Path, *, anew: bool = False) -> list[str]:
    """Bring the database up to date with the folders when the service starts.

    Jobs and proposals without a row are added: a service may have been killed between the folder and the row. An empty
    database is made anew.

    Args:
        store: The database.
        data: The data folder.
        anew: Make jobs, targets, schedules and proposals anew. Tokens and sessions stay where the database has them.

    Returns:
        What was done, and a line for each folder that cannot be read and is left out.

    Raises:
        StoreUnavailableError: the database does not answer; nothing was changed.
    """
    jobs, proposals = store.job_ids(), store.proposal_ids()
    is_empty = not jobs and not proposals and not store.targets(limit=1).items
    reading = _Reading(data)
    if anew or is_empty:
        index = reading.all()
        if anew or not index.is_empty:
            store.replace_index(index)
            why = "" if anew else "; the database was empty"
            reading.lines.append(f"index made anew: {_in_words(index)}{why}")
    else:
        index = reading.missing(jobs, proposals)
        store.add_index(index)
        reading.lines += [f"job {entry.job.id}: added to the index" for entry in index.jobs]
        reading.lines += [f"proposal {proposal.id}: added to the index" for proposal in index.proposals]
        store.sync_copies()
    return reading.lines


def indexed(folder: JobFolder) -> IndexedJob:
    """A job as its folder tells it.

    Raises:
        JobError: its submission cannot be read.
    """
    record = folder.read()
    if record.job.id != folder.id:
        raise JobError(f"{folder.submission}: is the submission of job {record.job.id}")
    active = ActiveJob(folder, record.job)
    active.look()
    lease = folder.lease() if active.has_process else None
    return IndexedJob(active.told, record.key, str(lease) if lease else None)


class _Reading:
    """Reads the folders.

    Attributes:
        lines: A line for each that cannot be read.
    """

    def __init__(self, data: Path) -> None:
        self.lines: list[str] = []
        self._data = data
        self._folders = JobFolder.all(data / "jobs")
        self._last = max((folder.id for folder in self._folders), default=0)

    def all(self) -> Index:
        """All of them."""
        targets = self._named(target_copies(self._data), "target")
        known = {target.name for target in targets}
        schedules = []
        for schedule in self._named(schedule_copies(self._data), "schedule"):
            if schedule.target in known:
                schedules.append(schedule)
            else:
                self.lines.append(f"schedule {schedule.name}: left out: no target {schedule.target!r}")
        return Index(self._jobs(self._folders), targets, schedules, self._proposals(()), self._last)

    def missing(self, jobs: Collection[int], proposals: Collection[int]) -> Index:
        """The jobs and proposals that are none of these."""
        new = [folder for folder in self._folders if folder.id not in jobs]
        return Index(self._jobs(new), proposals=self._proposals(proposals), last_job=self._last)

    def _jobs(self, folders: Collection[JobFolder]) -> list[IndexedJob]:
        found: list[IndexedJob] = []
        keys: dict[tuple[str, str], SubmissionKey] = {}
        for folder in folders:
            try:
                entry = indexed(folder)
            except (JobError, OSError) as error:
                self.lines.append(f"job {folder.id}: left out: {error}")
                continue
            if entry.key and keys.setdefault((entry.key.token, entry.key.key), entry.key) is not entry.key:
                # Its row was never written, or the request would not have been repeated.
                entry = IndexedJob(entry.job, None, entry.lease)
            found.append(entry)
        return found

    def _proposals(self, known: Collection[int]) -> list[Proposal]:
        found: dict[int, Proposal] = {}
        for folder in self._folders:
            records = ProposalFolder(folder)
            for number in records.ids():
                if number in known:
                    continue
                try:
                    proposal = records.read(number).proposal
                except JobError as error:
                    self.lines.append(f"proposal {number}: left out: {error}")
                    continue
                if number in found:
                    self.lines.append(f"proposal {number}: left out: jobs {found[number].job} and {folder.id} have it")
                    continue
                found[number] = proposal
        return list(found.values())

    def _named(self, copies: Copies[Named], kind: str) -> list[Named]:
        found = []
        for name in copies.names():
            try:
                found.append(copies.read(name))
            except JobError as error:
                self.lines.append(f"{kind} {name}: left out: {error}")
        return found


def _in_words(index: Index) -> str:
    counts = {
        "job": len(index.jobs),
        "target": len(index.targets),
        "schedule": len(index.schedules),
        "proposal": len(index.proposals),
    }
    return ", ".join(f"{count} {name}{'s' * (count != 1)}" for name, count in counts.items())
