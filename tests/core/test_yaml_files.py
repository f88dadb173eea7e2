from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tuner.core.errors import JobError
from tuner.core.yaml_files import YamlError, load_yaml, read_yaml


@pytest.mark.parametrize("word", ["on", "off", "yes", "no", "On", "OFF", "Yes", "NO", "y", "n", "12:30", "1:30:00.5"])
def test_words_and_times_of_day_are_text(word: str) -> None:
    assert load_yaml(f"a: {word}") == {"a": word}
    assert load_yaml(f"{word}: [{word}]") == {word: [word]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("TRUE", True),
        ("7", 7),
        ("0x10", 16),
        ("1.5", 1.5),
        ("-0.5", -0.5),
        ("null", None),
        ("'true'", "true"),
        ('"7"', "7"),
        ("90s", "90s"),
    ],
)
def test_booleans_and_numbers_are_what_they_are(text: str, value: Any) -> None:
    read = load_yaml(text)
    assert (type(read), read) == (type(value), value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: 1\na: 2", "^:2:1: a is given twice$"),
        (f"a: {'9' * 400}", "^:1:4: number is too large$"),
        ("a: [", r"^:\d:\d: not valid YAML: "),
        ("[" * 3000, "^: nested too deeply$"),
        ("a: 2026-99-99", "^: not valid YAML: "),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, complaint: str) -> None:
    with pytest.raises(YamlError, match=complaint):
        load_yaml(text)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff")
    with pytest.raises(JobError, match=r"a.yaml: cannot be read: it is not UTF-8 text$"):
        read_yaml(tmp_path / "a.yaml")
