from __future__ import annotations

from pathlib import Path

import pytest

from tuner.core.errors import SpaceError
from tuner.space.spec import OFF, ON, load_space, parse_space, shipped_spaces


def test_every_shipped_space_reads() -> None:
    assert "default" in shipped_spaces()
    for name in shipped_spaces():
        spec = load_space(name)
        assert spec.parameters or spec.backend == "auto"


def test_off_and_on_are_words_and_true_and_false_are_not() -> None:
    spec = parse_space("schema: 1\nparameters: {a: {ladder: [off, on, true, false, 1]}}", "s.yaml")
    values = spec.parameters["a"].values
    assert values == (OFF, ON, True, False, 1)
    assert [type(value) for value in values] == [str, str, bool, bool, int]


def test_lists_become_tuples() -> None:
    spec = parse_space("schema: 1\nparameters: {a: {ladder: [off, [4, 8], 16]}}", "s.yaml")
    assert spec.parameters["a"].values == (OFF, (4, 8), 16)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("schema: 2\nparameters: {a: {ladder: [1]}}", "s.yaml: schema: must be 1, got 2"),
        ("parameters: {a: {ladder: [1]}}", "s.yaml: schema is missing"),
        ("schema: 1\nparameters: {a: {lader: [1]}}", "parameters: a: unknown key 'lader'; did you mean 'ladder'"),
        ("schema: 1\nparameters: {a: 3}", "parameters: a: must be a mapping, got 3"),
        ("schema: 1\nparamters: {a: {ladder: [1]}}", "unknown key 'paramters'; did you mean 'parameters'"),
        ("schema: 1\nparameters: {a: {ladder: []}}", "parameters: a: ladder: must not be empty"),
        ("schema: 1\nparameters: {a: {ladder: [1, {}]}}", "parameters: a: ladder: {} is not a value; write a number"),
        ("schema: 1\nparameters: {a: {ladder: [1, 1]}}", "duplicate value 1 in ladder"),
        (
            "schema: 1\nparameters: {abc: {ladder: [1]}, b: {ladder: [1], when: {abd: [1]}}}",
            "b: when: this space has no parameter 'abd'; did you mean 'abc'",
        ),
        (
            "schema: 1\nparameters: {b: {ladder: [1], when: {b: [1]}}}",
            "b: when: a parameter cannot depend on itself",
        ),
        (
            "schema: 1\nparameters: {a: {ladder: [1]}, b: {ladder: [1], when: {a: 1}}}",
            "parameters: b: when: a: must be a list, got 1",
        ),
        (
            "schema: 1\nparameters: {a: {ladder: [1]}, b: {ladder: [1], when: {a: []}}}",
            "b: when: a: needs at least one value",
        ),
        ("schema: 1\nparameters: {a: [1}", "s.yaml:2:19: not valid YAML: expected"),
        ("[]", "s.yaml: a search space must be a mapping"),
    ],
)
def test_a_wrong_space_is_named_with_its_place(text: str, complaint: str) -> None:
    with pytest.raises(SpaceError, match=complaint) as caught:
        parse_space(text, "s.yaml")
    assert "\n" not in str(caught.value)


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(SpaceError, match="'defualt' is neither a file nor a shipped .*did you mean 'default'"):
        load_space("defualt")


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("schema: 1\nparameters: {max_batch_size: {ladder: [8, 16]}}\n")
    assert load_space(str(file)).parameters["max_batch_size"].values == (8, 16)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="cannot be read: No such file"):
        load_space(str(tmp_path / "none.yaml"))


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpaceError, match="it is not UTF-8 text"):
        load_space(str(file))
