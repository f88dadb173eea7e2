from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import BeforeValidator
from pydantic_core import PydanticUndefined

from tuner.nightly import jobs
from tuner.nightly.jobs import JobsFile, NightlyJob, Notify


def test_what_ships_is_what_the_code_says() -> None:
    shipped = json.loads((files("tuner.nightly") / jobs.SCHEMA_FILE).read_text())
    assert shipped == jobs.jobs_schema(), "write it anew: tritontune nightly --schema > tuner/nightly/jobs.schema.json"


def test_it_is_a_schema_with_a_description_of_every_field() -> None:
    made = jobs.jobs_schema()
    Draft202012Validator.check_schema(made)
    for part in (made, *made["$defs"].values()):
        for name, field in part["properties"].items():
            assert len(field["description"]) > 5, name


def test_it_knows_the_words_of_every_field_that_reads_texts() -> None:
    for model in (JobsFile, NightlyJob, Notify):
        for name, field in model.model_fields.items():
            reads = [each for each in field.metadata if isinstance(each, BeforeValidator)]
            told = all(each.json_schema_input_type is not PydanticUndefined for each in reads)
            assert told, f"{name}: say by json_schema_input_type how it is written"


_WHOLE: dict[str, Any] = {
    "window": "4h",
    "min_gain": "3%",
    "notify": [{"slack": "${HOOK}"}],
    "jobs": [
        {
            "repository": "models",
            "model": "mlp",
            "slo": {"p99": "40ms"},
            "budget": "1h30m",
            "gpus": "0,1",
            "shape": {"X": [1, 4]},
            "env": ["A=b"],
            "shm_size": "2GiB",
            "precision": "3%,10%",
            "output_tolerance": "0.1%",
            "launch_timeout": "60s",
            "action": "command",
            "command": ["git", "apply"],
        }
    ],
}


def test_a_good_file_fits() -> None:
    Draft202012Validator(jobs.jobs_schema()).validate(_WHOLE)


@pytest.mark.parametrize(
    "wrong",
    [
        {"widnow": "4h"},
        {"jobs": []},
        {"jobs": [{"model": "mlp"}]},
        {"jobs": [{"repository": "models", "slo": {"p99": 40}}]},
        {"jobs": [{"repository": "models", "slo": {"p99": "40"}}]},
        {"jobs": [{"repository": "models", "slo": {"p98": "40ms"}}]},
        {"jobs": [{"repository": "models", "model": 3}]},
        {"jobs": [{"repository": "models", "action": "deploy"}]},
        {"jobs": [{"repository": "models", "budget": 600}]},
        {"window": 3600},
        {"keep_nights": 0},
    ],
)
def test_a_wrong_one_does_not(wrong: dict[str, Any]) -> None:
    assert not Draft202012Validator(jobs.jobs_schema()).is_valid({**_WHOLE, **wrong})
