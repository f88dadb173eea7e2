from __future__ import annotations

from typing import Any

import pytest

from tuner.options.environment import parse_environment, resolved


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "secret")
    monkeypatch.delenv("ABSENT", raising=False)


@pytest.mark.parametrize("value", [["A=b=c", "TOKEN", "E="], {"A": "b=c", "TOKEN": None, "E": ""}])
def test_values_and_what_is_handed_on(value: Any) -> None:
    read = parse_environment(value)
    assert read == {"A": "b=c", "TOKEN": None, "E": ""}
    assert resolved(read) == {"A": "b=c", "TOKEN": "secret", "E": ""}


def test_numbers_and_truth_of_a_job_file_are_texts() -> None:
    assert parse_environment({"N": 4, "DEBUG": True}) == {"N": "4", "DEBUG": "true"}


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("ABSENT", "'ABSENT' is not set in this environment, so it cannot be passed on; write ABSENT=VALUE"),
        ("=x", "'' is not a variable name; write NAME=VALUE"),
        (["A=1", "A=2"], "'A' is set twice"),
        ({"A": [1]}, r"\[1\] must be text; write variables as"),
        ("TRITONTUNE_SERVER=x", "'TRITONTUNE_SERVER' is reserved: tritontune recognises its servers by it"),
    ],
)
def test_says_what_would_be_right(value: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_environment(value)
