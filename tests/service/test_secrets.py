from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tuner.core import redaction
from tuner.core.errors import JobError
from tuner.core.redaction import unkept, without_known_secrets
from tuner.options.tune_job import TuneJob
from tuner.service.refusals import ForbiddenError
from tuner.service.secrets import Secrets, references, with_secrets

_SECRETS = Secrets(("API_TOKEN", "TRITON_*"), {"API_TOKEN": "s3cret-of-api", "HOME": "/root", "TRITON_EMPTY": ""})


@pytest.mark.parametrize(
    "options",
    [
        {"header": ["authorization:Bearer ${API_TOKEN}"]},
        {"header": "authorization:Bearer ${API_TOKEN}"},
        {"header": {"Authorization": "Bearer ${API_TOKEN}"}},
        {"header": [["authorization", "${API_TOKEN}"]]},
        {"env": {"HF_TOKEN": "${API_TOKEN}"}},
        {"env": ["HF_TOKEN=${API_TOKEN}", "OMP_NUM_THREADS=4"]},
        {"request_parameter": {"api_key": "${API_TOKEN}"}},
        {"header": ["x-team:vision"], "string_data": "a ${template}"},
    ],
)
def test_references_may_stand_in_these_options(options: dict[str, Any]) -> None:
    _SECRETS.check(options)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"header": ["authorization:Bearer abcdef123456"]}, "header: the value of authorization would be stored"),
        ({"header": {"X-Api-Key": "abcdef123456"}}, "header: the value of X-Api-Key"),
        ({"header": [["cookie", "session=1"]]}, "header: the value of cookie"),
        ({"env": {"HF_TOKEN": "hf_abc"}}, r"env: .* such as HF_TOKEN: \$\{NAME\}"),
        ({"env": "DB_PASSWORD=a=b"}, "env: the value of DB_PASSWORD"),
        ({"request_parameter": {"api_key": "abc"}}, "request_parameter: the value of api_key"),
        ({"url": "http://${API_TOKEN}:8000"}, r"url: \$\{API_TOKEN\} has no meaning here; .* header, env"),
        ({"model": ["${API_TOKEN}"]}, "model: "),
        ({"header": ["authorization:${TRITON_KEY}"]}, r"\$\{TRITON_KEY\} is unknown: neither an environment variable"),
        ({"header": ["authorization:${TRITON_EMPTY}"]}, r"\$\{TRITON_EMPTY\} is unknown"),
    ],
)
def test_what_is_wrong_with_a_secret_is_said_with_the_fix(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(JobError, match=reason):
        _SECRETS.check(options)


def test_only_listed_names_may_be_referred_to() -> None:
    with pytest.raises(ForbiddenError, match=r"\$\{HOME\} is not allowed; .* `secrets`"):
        _SECRETS.check({"header": ["x-home:${HOME}"]})


def test_a_file_of_the_folder_wins_over_the_environment(tmp_path: Path) -> None:
    (tmp_path / "API_TOKEN").write_text("of-the-file\n")
    secrets = Secrets(("*",), {"API_TOKEN": "of-the-environment", "OTHER": "x"}, tmp_path)
    assert secrets.value("API_TOKEN") == "of-the-file"
    assert secrets.values({"header": {"a": "${API_TOKEN}", "b": "${OTHER} ${NONE}"}}) == {
        "API_TOKEN": "of-the-file",
        "OTHER": "x",
    }


def test_the_process_of_the_job_gets_the_values_and_nothing_else_is_replaced() -> None:
    options = {
        "header": ["authorization:Bearer ${API_TOKEN}"],
        "env": {"HF_TOKEN": "${API_TOKEN}", "KEPT": None},
        "string_data": "${API_TOKEN}",
        "budget": "1m",
    }
    assert references(options) == {"API_TOKEN"}
    assert with_secrets(options, {"API_TOKEN": "s3cret"}) == {
        "header": ["authorization:Bearer s3cret"],
        "env": {"HF_TOKEN": "s3cret", "KEPT": None},
        "string_data": "${API_TOKEN}",
        "budget": "1m",
    }
    with pytest.raises(JobError, match="API_TOKEN is not set"):
        with_secrets(options, {})


def test_a_job_that_is_only_checked_leaves_nothing_in_memory(tmp_path: Path) -> None:
    options = {"repository": str(tmp_path), "header": ["x-trace:abcdef123456789"], "env": {"A_TOKEN": "abcdef-first"}}
    before = set(redaction._known)
    with unkept():
        TuneJob.make(options)
    assert redaction._known == before
    TuneJob.make(options)
    assert without_known_secrets("abcdef-first") == "***"


def test_a_reference_is_no_secret_of_its_own(tmp_path: Path) -> None:
    TuneJob.make({"repository": str(tmp_path), "header": ["authorization:Bearer ${API_TOKEN}"]})
    assert without_known_secrets("header ${API_TOKEN}") == "header ${API_TOKEN}"
