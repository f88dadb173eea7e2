from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from support.builders import interval
from support.stored import T0, job, proposal, target

from tuner.client.resources import Job, ModelResult
from tuner.service.documents import in_one_line, parsed
from tuner.service.job_folder import JobFolder, SubmissionRecord
from tuner.service.store.store import Store

RESULT = ModelResult(model="mlp", trial=3, throughput=interval(1.0), latency_ms=None, percentile="p99", gain=None)


def test_fields_of_later_versions_are_ignored() -> None:
    kept = job(3, results=(RESULT,), started_at=T0)
    later = json.loads(kept.model_dump_json())
    later["colour"] = "red"
    later["progress"]["seconds"] = 3
    later["results"][0] |= {"shade": {"a": 1}}
    later["results"][0]["throughput"]["unit"] = "1/s"
    assert parsed(Job, json.dumps(later)) == kept


@pytest.mark.parametrize(
    ("document", "fault"),
    [("{", "Invalid JSON"), ("[]", "Input should be an object"), ('{"id": 1, "x": 2}', "kind: Field required")],
)
def test_what_is_wrong_is_said(document: str, fault: str) -> None:
    with pytest.raises(ValidationError) as told:
        parsed(Job, document)
    assert in_one_line(told.value).startswith(fault)


def test_a_database_and_folders_are_read_after_an_upgrade_was_undone(tmp_path: Path) -> None:
    """Without a new table, the later version leaves the schema as it is."""
    folder = JobFolder.of(tmp_path / "jobs", 1)
    folder.write(SubmissionRecord(job=job(1)))
    with Store.opened(f"sqlite:///{tmp_path}/service.db", data=tmp_path) as store:
        store.add_job(job(1))
        store.add_proposal(proposal(1))
        made = store.put_target("edge", target())
        with store.writing() as connection:
            for table in ("job_documents", "proposals", "targets"):
                connection.exec_driver_sql(
                    f"UPDATE tritontune_{table} SET document = json_insert(document, '$.new', 1)"  # noqa: S608 (no input)
                )
        record = json.loads(folder.submission.read_text())
        record["job"]["new"] = record["new"] = 1
        folder.submission.write_text(json.dumps(record))
        assert store.jobs().items == (job(1),)
        assert store.proposals().items == (proposal(1),)
        assert store.target("edge") == made
        assert folder.read().job == job(1)
        assert store.change_job(1, among=["queued"], state="starting").version == 2
