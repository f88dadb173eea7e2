from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tuner.core.errors import JobError
from tuner.options.tune_job import TuneJob


def _job(**options: Any) -> TuneJob:
    return TuneJob.make({**({} if "url" in options else {"repository": "models"}), **options})


@pytest.mark.parametrize(("given", "number"), [("4", 4), (4, 4), ("auto", "auto"), (" auto ", "auto"), (1, 1)])
def test_trials_at_a_time_are_a_number_or_as_many_as_there_are_slots(given: object, number: object) -> None:
    job = _job(parallel=given)
    assert job.parallel == number
    assert TuneJob.model_validate_json(job.model_dump_json()) == job


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"parallel": "0"}, "--parallel: must be >= 1 and <= 4096, got 0"),
        ({"parallel": -1}, "--parallel: must be >= 1 and <= 4096, got -1"),
        ({"parallel": 5000}, "--parallel: must be >= 1 and <= 4096, got 5000"),
        ({"parallel": "all"}, "--parallel: 'all' is not a number of trials; write 1 or more, or auto"),
        ({"parallel": "2.5"}, "--parallel: '2.5' is not a number of trials; write 1 or more, or auto"),
        ({"parallel": True}, "--parallel: True is not a number of trials; write 1 or more, or auto"),
        ({"parallel": [2]}, "--parallel: [2] is not a number of trials; write 1 or more, or auto"),
        ({"cores_per_slot": 0}, "--cores-per-slot: must be >= 1, got 0"),
        ({"gpus_per_slot": "x"}, "--gpus-per-slot: must be a whole number, got 'x'"),
        ({"executor": "slurm"}, "--executor: must be 'local' or 'ray', got 'slurm'"),
        ({"ray_address": "head:6379"}, "--ray-address needs --executor ray"),
        ({"mixed": True}, "--mixed needs --executor ray"),
        ({"repository_on_hosts": "/models"}, "--repository-on-hosts needs --executor ray"),
        (
            {"executor": "ray", "repository_on_hosts": "models"},
            "--repository-on-hosts: 'models' is not an absolute path, which each host needs",
        ),
        ({"gpus_per_slot": 1, "gpus": "none"}, "--gpus-per-slot cannot be used with --gpus none"),
        ({"url": "h:8001", "parallel": "2"}, "--parallel 2 cannot be used with --url: that server runs already"),
        ({"url": "h:8001", "parallel": "auto"}, "--parallel auto cannot be used with --url: that server runs already"),
        ({"url": "h:8001", "executor": "ray"}, "--executor ray cannot be used with --url: that server runs already"),
        (
            {"url": "h:8001", "cores_per_slot": 2},
            "--cores-per-slot 2 cannot be used with --url: that server runs already",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(JobError) as raised:
        _job(**options)
    assert str(raised.value) == complaint


@pytest.mark.parametrize(
    "options",
    [
        {"url": "h:8001", "parallel": 1, "executor": "local"},
        {"executor": "ray"},
        {"executor": "ray", "ray_address": "head:6379", "mixed": True, "repository_on_hosts": "/models"},
        {"parallel": "auto", "isolation": "reload"},
        {"parallel": 4, "gpus": "0,1,2,3", "gpus_per_slot": 1},
    ],
)
def test_what_can_be_passes(options: dict[str, Any]) -> None:
    _job(**options)


@pytest.mark.parametrize(
    ("options", "slots"),
    [
        ({}, False),
        ({"parallel": 1, "executor": "local"}, False),
        ({"parallel": 2}, True),
        ({"parallel": "auto"}, True),
        ({"cores_per_slot": 1}, True),
        ({"gpus_per_slot": 1}, True),
        ({"executor": "ray"}, True),
    ],
)
def test_one_trial_at_a_time_needs_no_slots(options: dict[str, Any], *, slots: bool) -> None:
    assert _job(**options).has_slots == slots


def test_a_path_on_hosts_may_be_given_as_a_path() -> None:
    assert _job(executor="ray", repository_on_hosts=Path("/m")).repository_on_hosts == Path("/m")
