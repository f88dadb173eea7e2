"""The files of proposals: `jobs/12/proposals/7.json`, the record with its decision, and `7/`, the files to deploy."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import ValidationError

from tuner.client.resources import Proposal, Resource
from tuner.config.deploy import sha256_of
from tuner.core.atomic_file import write_atomically
from tuner.core.errors import JobError
from tuner.service.documents import in_one_line, parsed
from tuner.service.job_folder import JobFolder

_NUMBER = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)


class Approval(Resource):
    """An approval whose files are being deployed.

    Attributes:
        by: Name of the token that approved.
        at: When it approved, UTC.
        reason: Its reason.
    """

    by: str
    at: datetime
    reason: str = ""


class ProposalRecord(Resource):
    """A proposal with what the service needs to deploy it.

    Attributes:
        schema_version: Counts breaking changes.
        proposal: The proposal, with its decision.
        files: By path in the repository: SHA-256 of the deployed file that the proposal was made for; None: there was
            none.
        deploying: Set while its files are replaced, so that a service that was killed meanwhile knows.
    """

    schema_version: Literal[1] = 1
    proposal: Proposal
    files: Mapping[str, str | None]
    deploying: Approval | None = None


class ProposalFolder:
    """The proposals of a job.

    Args:
        job: The folder of the job.
    """

    def __init__(self, job: JobFolder) -> None:
        self.path = job.path / "proposals"

    def ids(self) -> list[int]:
        """The ids of all records, from low to high."""
        if not self.path.is_dir():
            return []
        return sorted(int(path.stem) for path in self.path.glob("*.json") if _NUMBER.fullmatch(path.stem))

    def read(self, number: int) -> ProposalRecord:
        """A record.

        Raises:
            JobError: there is none, or it cannot be read.
        """
        path = self._record(number)
        try:
            record = parsed(ProposalRecord, path.read_bytes())
        except OSError as error:
            raise JobError(f"{path}: cannot be read: {error.strerror}") from None
        except ValidationError as error:
            raise JobError(f"{path}: {in_one_line(error)}") from None
        if record.proposal.id != number:
            raise JobError(f"{path}: is the record of proposal {record.proposal.id}")
        return record

    def write(self, record: ProposalRecord) -> None:
        """Write a record, in one step.

        Raises:
            OSError: it cannot be written.
        """
        write_atomically(self._record(record.proposal.id), record.model_dump_json(indent=1) + "\n")

    def write_files(self, number: int, texts: Mapping[str, str]) -> None:
        """Write the files of a proposal.

        Args:
            number: The id of the proposal.
            texts: Their texts, by path in the repository.

        Raises:
            OSError: they cannot be written.
        """
        for path, text in texts.items():
            write_atomically(self.path / str(number) / _checked(path), text)

    def texts(self, record: ProposalRecord) -> dict[str, str]:
        """The texts of the files of a proposal, by path in the repository.

        Raises:
            JobError: a file cannot be read.
        """
        found = {}
        for path in record.files:
            file = self.path / str(record.proposal.id) / _checked(path)
            try:
                found[path] = file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                why = error.strerror if isinstance(error, OSError) else "is not UTF-8"
                raise JobError(f"{file}: cannot be read: {why}") from None
        return found

    def _record(self, number: int) -> Path:
        return self.path / f"{number}.json"


def is_deployed(record: ProposalRecord, texts: Mapping[str, str]) -> bool:
    """Whether all files of a proposal are deployed.

    Raises:
        ConfigError: a deployed file cannot be read.
    """
    return all(sha256_of(Path(record.proposal.repository) / path) == sha256(text) for path, text in texts.items())


def why_outdated(record: ProposalRecord, texts: Mapping[str, str]) -> str:
    """Why a proposal does not fit to the deployed files any more; empty: it does.

    Raises:
        ConfigError: a deployed file cannot be read.
    """
    for path, text in texts.items():
        now, expected = sha256_of(Path(record.proposal.repository) / path), record.files[path]
        if now not in {expected, sha256(text)}:
            how = "is gone" if now is None else "has changed" if expected else "was created"
            return f"{path} {how} since job {record.proposal.job} measured it"
    return ""


def sha256(text: str) -> str:
    """The result of `sha256_of` for a file with this text."""
    return hashlib.sha256(text.encode()).hexdigest()


def _checked(path: str) -> PurePosixPath:
    """A path within a repository.

    Raises:
        JobError: it leads elsewhere.
    """
    checked = PurePosixPath(path)
    if checked.is_absolute() or ".." in checked.parts or not checked.parts or "\0" in path:
        raise JobError(f"{path!r} is not a path within a model repository")
    return checked
