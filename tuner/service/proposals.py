"""Proposals: better configurations that wait for a decision, and their deployment.

The record in the folder of the job is the truth, and is written first; the row in the database follows.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from tuner.client.resources import Job, JobState, Proposal, ProposalState
from tuner.config.deploy import Replacement, finish_replacing, replace_files, sha256_of
from tuner.core.errors import ConfigError, JobError
from tuner.service.errors import ConflictError, NotFoundError
from tuner.service.improvements import Improvement, improvement_of_night, improvements_of_run, nights_of
from tuner.service.job_folder import JobFolder
from tuner.service.proposal_records import (
    Approval,
    ProposalFolder,
    ProposalRecord,
    is_deployed,
    sha256,
    why_outdated,
)
from tuner.service.store.database import Clock, utc_now
from tuner.service.store.pages import every
from tuner.service.store.proposals import ProposalFilter, check_open
from tuner.service.store.store import Store
from tuner.study.run_folder import RunFolder

_log = logging.getLogger(__name__)

ENDED: frozenset[JobState] = frozenset({"succeeded", "failed"})
"""States of jobs that may have proposals."""


class ProposalDesk:
    """Makes proposals, and carries out the decisions on them.

    Args:
        store: The rows.
        jobs: The folder of the jobs' folders.
        clock: The time, UTC.
    """

    def __init__(self, store: Store, jobs: Path, clock: Clock = utc_now) -> None:
        self._store, self._jobs, self._clock = store, jobs, clock
        # One decision at a time, as two could concern the same files.
        self._mutex = threading.RLock()

    def of_job(self, job: Job) -> tuple[Proposal, ...]:
        """Make the proposals of a job that has ended by itself. Does nothing if that is done.

        A job fails if one of its models does; the others may have been improved.

        A proposal withdraws the open ones of the same model. A change that was rejected is proposed again by a tuning
        job only, which a person has submitted, and not night after night. With the policy `apply`, the improvement of
        a tuning job is deployed at once; a night does that by itself.

        Returns:
            All proposals of the job.

        Raises:
            JobError: the submission of the job cannot be read.
            StoreUnavailableError: the database does not answer.
            OSError: a record cannot be written.
        """
        if job.state not in ENDED or job.kind == "measure":
            return ()
        folder = JobFolder.of(self._jobs, job.id)
        policy = folder.read().policy
        with self._mutex:
            made = {record.proposal.model: record for record in self._records_of(folder)}
            for record in made.values():
                self._sync(record)
            for found in _improvements(job, folder, policy.min_gain):
                if found.model in made:
                    continue
                if job.kind == "nightly" and (rejected := self._rejected(found)):
                    _log.info("job %d: %s: proposal %d of the same change was rejected", job.id, found.model, rejected)
                    continue
                record = self._add(job, folder, found)
                made[found.model] = record
                if policy.action == "apply" and job.kind == "tune":
                    with suppress(ConflictError, ConfigError):  # it stays open, or is withdrawn with the reason
                        self._deploy(record, Approval(by="the target's policy", at=self._clock()))
            # The job's process, or a person, may have changed what others were made for.
            for line in self._look_at_open():
                _log.info("%s", line)
            return tuple(self._store.proposal(record.proposal.id) for record in made.values())

    def approve(self, proposal_id: int, by: str, reason: str = "", *, if_version: int | None = None) -> Proposal:
        """Deploy the files of a proposal, all or none, with a backup of each.

        Args:
            proposal_id: The proposal.
            by: Name of the token that approves.
            reason: Its reason.
            if_version: The version that the proposal must have; None: any.

        Raises:
            NotFoundError: there is no such proposal.
            ConflictError: it is not open, or has another version; or it was withdrawn now, as the deployed files have
                changed since. Or a file cannot be read or written: nothing was changed, and the proposal stays open.
            StoreUnavailableError: the database does not answer.
        """
        with self._mutex, _as_conflict(proposal_id):
            record = self._open(proposal_id, if_version)
            return self._deploy(record, Approval(by=by, at=self._clock(), reason=reason))

    def reject(self, proposal_id: int, by: str, reason: str = "", *, if_version: int | None = None) -> Proposal:
        """Reject a proposal; arguments and errors as for `approve`."""
        with self._mutex, _as_conflict(proposal_id):
            return self._decide(self._open(proposal_id, if_version), "rejected", by, reason)

    def catch_up(self) -> list[str]:
        """Finish the deployments that a killed service has begun, and withdraw proposals whose files have changed.

        Returns:
            What was done or failed, one line each.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        with self._mutex:
            return self._look_at_open()

    def _look_at_open(self) -> list[str]:
        return [line for proposal in list(self._open_proposals()) if (line := self._caught_up(proposal))]

    def _caught_up(self, proposal: Proposal) -> str:
        try:
            record = self._folder(proposal).read(proposal.id)
            if self._sync(record).state != "open":
                return ""
            texts = self._folder(proposal).texts(record)
            if record.deploying:
                return self._finish(record, record.deploying, texts)
            return self._recheck(record, texts)
        except (JobError, ConfigError, OSError) as error:
            return f"proposal {proposal.id}: {error}"

    def _finish(self, record: ProposalRecord, approval: Approval, texts: Mapping[str, str]) -> str:
        """Finish a deployment during which the service was killed."""
        proposal = record.proposal
        finish_replacing(Path(proposal.repository))
        if is_deployed(record, texts):
            self._decide(record, "approved", approval.by, _joined(approval.reason, f"deployed: {', '.join(texts)}"))
            return f"proposal {proposal.id}: its deployment was interrupted, and is finished"
        self._write(record.model_copy(update={"deploying": None}))
        return f"proposal {proposal.id}: its deployment was interrupted before it had begun; it is open"

    def _recheck(self, record: ProposalRecord, texts: Mapping[str, str]) -> str:
        """Withdraw a proposal that does not fit to the deployed files any more. Returns a message; empty: it stays."""
        if not Path(record.proposal.repository).is_dir():
            return ""  # perhaps it is back later
        why = why_outdated(record, texts)
        if not why and not record.proposal.to_set and is_deployed(record, texts):
            why = "its files are deployed"
        if why:
            self._decide(record, "withdrawn", None, why)
        return f"proposal {record.proposal.id}: withdrawn: {why}" if why else ""

    def _add(self, job: Job, folder: JobFolder, found: Improvement) -> ProposalRecord:
        proposal = Proposal(
            id=self._store.next_proposal_id(),
            state="open",
            job=job.id,
            target=job.target,
            repository=found.repository,
            model=found.model,
            created_at=self._clock(),
            diff=found.diff,
            to_set=found.to_set,
            gain=found.gain,
            throughput=found.throughput,
            latency_ms=found.latency_ms,
            percentile=found.percentile,
            verified=found.verified,
            evidence=found.evidence,
        )
        record = ProposalRecord(proposal=proposal, files=found.before)
        proposals = ProposalFolder(folder)
        proposals.write_files(proposal.id, found.texts)
        proposals.write(record)
        self._store.add_proposal(proposal)
        self._withdraw_others(proposal, f"proposal {proposal.id} is newer")
        return record

    def _deploy(self, record: ProposalRecord, approval: Approval) -> Proposal:
        proposal = record.proposal
        repository = Path(proposal.repository)
        if not repository.is_dir():
            raise ConflictError(f"proposal {proposal.id}: no model repository at {repository}; nothing was changed")
        finish_replacing(repository)
        texts = self._folder(proposal).texts(record)
        if why := why_outdated(record, texts):
            self._decide(record, "withdrawn", None, why)
            raise ConflictError(f"proposal {proposal.id}: withdrawn: {why}; nothing was changed")
        replacements = [
            Replacement(repository / path, text, record.files[path])
            for path, text in texts.items()
            if sha256_of(repository / path) != sha256(text)
        ]
        # From here on, a killed service is known to have deployed, or not, by the files alone.
        self._write(record.model_copy(update={"deploying": approval}))
        try:
            backups = replace_files(repository, replacements)
        except BaseException:
            with suppress(OSError):
                self._write(record)
            raise
        what = [_in_words(each, backup, repository) for each, backup in zip(replacements, backups, strict=True)]
        words = f"deployed: {'; '.join(what)}" if what else "its files were deployed already"
        decided = self._decide(record, "approved", approval.by, _joined(approval.reason, words))
        self._withdraw_others(proposal, f"proposal {proposal.id} was deployed")
        return decided

    def _decide(self, record: ProposalRecord, state: ProposalState, by: str | None, reason: str) -> Proposal:
        proposal = record.proposal
        decision = {"state": state, "decided_at": self._clock(), "decided_by": by, "reason": reason}
        decided = proposal.model_copy(update={**decision, "version": proposal.version + 1})
        self._write(record.model_copy(update={"proposal": decided, "deploying": None}))
        self._store.store_proposal(decided)
        _log.info("proposal %s of job %s: %s by %s: %s", proposal.id, proposal.job, state, by or "the service", reason)
        return decided

    def _withdraw_others(self, proposal: Proposal, why: str) -> None:
        """Withdraw the other open proposals of the same model."""
        for other in list(self._open_proposals(proposal.model)):
            if other.repository == proposal.repository and other.id != proposal.id:
                try:
                    record = self._folder(other).read(other.id)
                except JobError:  # its record is damaged; the row is all that is left
                    self._store.store_proposal(other.model_copy(update={"state": "withdrawn", "reason": why}))
                else:
                    if self._sync(record).state == "open":
                        self._decide(record, "withdrawn", None, why)

    def _open(self, proposal_id: int, if_version: int | None) -> ProposalRecord:
        """The record of an open proposal."""
        row = self._store.proposal(proposal_id)
        record = self._folder(row).read(proposal_id)
        check_open(self._sync(record), if_version)
        return record

    def _sync(self, record: ProposalRecord) -> Proposal:
        """Make the row of a proposal equal to its record, if a killed service did not. Returns the proposal."""
        try:
            same = self._store.proposal(record.proposal.id) == record.proposal
        except NotFoundError:
            same = False
        if not same:
            self._store.store_proposal(record.proposal)
        return record.proposal

    def _open_proposals(self, model: str | None = None) -> Iterator[Proposal]:
        return every(partial(self._store.proposals, ProposalFilter(states=["open"], model=model)))

    def _rejected(self, found: Improvement) -> int | None:
        """The last decided proposal of the model in its repository, if it was of the same change and was rejected."""
        decided = every(
            partial(self._store.proposals, ProposalFilter(states=["rejected", "approved"], model=found.model))
        )
        last = next((proposal for proposal in decided if proposal.repository == found.repository), None)
        if last is None or last.state != "rejected":
            return None
        return last.id if (last.to_set, _change(last.diff)) == (found.to_set, _change(found.diff)) else None

    def _records_of(self, job: JobFolder) -> Iterator[ProposalRecord]:
        folder = ProposalFolder(job)
        for number in folder.ids():
            with suppress(JobError):
                yield folder.read(number)

    def _folder(self, proposal: Proposal) -> ProposalFolder:
        return ProposalFolder(JobFolder.of(self._jobs, proposal.job))

    def _write(self, record: ProposalRecord) -> None:
        self._folder(record.proposal).write(record)


@contextmanager
def _as_conflict(proposal_id: int) -> Iterator[None]:
    """Files that cannot be read or written are no fault of the request."""
    try:
        yield
    except (ConfigError, JobError) as error:
        raise ConflictError(f"proposal {proposal_id}: {error}") from None


def _improvements(job: Job, folder: JobFolder, min_gain: float) -> Iterator[Improvement]:
    if job.kind == "nightly":
        # A night has compared the gain with the policy already. The last one of a model counts, if it was resumed.
        nights = {night.model: night for night in nights_of(folder)}
        yield from filter(None, map(improvement_of_night, nights.values()))
        return
    for found in improvements_of_run(RunFolder(folder.run), min_gain):
        if isinstance(found, str):
            _log.warning("job %s: %s", job.id, found)
        else:
            yield found


def _in_words(replacement: Replacement, backup: Path | None, repository: Path) -> str:
    path = replacement.path.relative_to(repository)
    return f"{path} (backup: {backup.name})" if backup else f"{path} (there was none)"


def _change(diff: str) -> list[str]:
    """The lines of a diff without its comments, which tell of the measurements."""
    return [line for line in diff.splitlines() if not line.startswith("#")]


def _joined(*parts: str) -> str:
    return "; ".join(filter(None, parts))
