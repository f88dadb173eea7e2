"""Edits of JSON and YAML files: only what they name changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tuner.config.documents import Document, DocumentValue
from tuner.core.errors import ConfigError

JSON = (
    '{\n\t"model": "/models/llm",\n  "max_num_seqs": 256,   "nested": {"a": [1, 2], "b.c": null},\n  "last": 0.90\n}\n'
)
YAML = """\
# The engine.
model: /models/llm   # a folder
engine:
  seqs: 256  # as the docs say
  mode: 'fast'
list:
  - name: one
    size: 1
flow: {k: v, w: [1, 2]}
"""


def json_edited(changes: dict[str, DocumentValue | None]) -> str:
    return Document(JSON, "m/1/model.json").edited(changes).text


def yaml_edited(changes: dict[str, DocumentValue | None]) -> str:
    return Document(YAML, "m/1/model.yaml").edited(changes).text


@pytest.mark.parametrize(
    ("path", "value"),
    [("max_num_seqs", 256), ("nested.a", [1, 2]), ('nested["b.c"]', None), ("nested.a[1]", 2), ("absent", None)],
)
def test_values_by_path(path: str, value: object) -> None:
    assert Document(JSON, "m.json").value(path) == value


@pytest.mark.parametrize(
    ("changes", "old", "new"),
    [
        ({"max_num_seqs": 64}, "256", "64"),
        ({"nested.a": (3,)}, "[1, 2]", "[3]"),
        ({"nested.a[0]": True}, "[1, 2]", "[true, 2]"),
        ({"nested.d": "é"}, '"b.c": null', '"b.c": null, "d": "é"'),
        ({"new": 1}, "0.90\n", '0.90,\n  "new": 1\n'),
        ({"last": None}, ',\n  "last": 0.90\n}', "\n}"),
        ({"model": None}, '\n\t"model": "/models/llm",\n  "max', '\n\t"max'),
    ],
)
def test_an_edit_of_json_keeps_every_other_byte(changes: dict[str, Any], old: str, new: str) -> None:
    assert old in JSON
    assert json_edited(changes) == JSON.replace(old, new)


@pytest.mark.parametrize(
    ("changes", "old", "new"),
    [
        ({"engine.seqs": 64}, "256", "64"),
        ({"engine.mode": "on"}, "'fast'", "'on'"),
        ({"engine.depth": 0.5}, "'fast'\n", "'fast'\n  depth: 0.5\n"),
        ({"list[0].size": None}, "    size: 1\n", ""),
        ({"list[0].kind": "x"}, "size: 1\n", "size: 1\n    kind: x\n"),
        ({"flow.w": (4, 5)}, "[1, 2]", "[4, 5]"),
        ({"flow.n": 1}, "[1, 2]}", "[1, 2], n: 1}"),
        ({"engine.seqs": None}, "  seqs: 256  # as the docs say\n", ""),
        ({"new": True}, "[1, 2]}\n", "[1, 2]}\nnew: true\n"),
    ],
)
def test_an_edit_of_yaml_keeps_comments_and_order(changes: dict[str, Any], old: str, new: str) -> None:
    assert old in YAML
    assert yaml_edited(changes) == YAML.replace(old, new)


def test_the_value_that_is_there_changes_nothing() -> None:
    assert json_edited({"max_num_seqs": 256, "nested.a": (1, 2), "absent": None}) == JSON


@pytest.mark.parametrize(
    ("text", "source", "message"),
    [
        ("{", "m.json", "m.json:1:2: "),
        ("[1]", "m.json", "m.json: its top must be a mapping"),
        ("a: [", "m.yaml", "m.yaml:1:5: not valid YAML: "),
        ("", "m.yaml", "m.yaml: its top must be a mapping"),
    ],
)
def test_files_that_are_not_valid(text: str, source: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Document(text, source)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nestd.a", "m.json: nestd.a: no 'nestd'; did you mean 'nested'?"),
        ("nested.a[2]", "m.json: nested.a[2]: there is no element 2"),
        ("last.x", "m.json: last.x: what holds 'x' is not a mapping"),
        ("a..b", "invalid field path 'a..b'; write it as a.b, a[0].b or a[\"key\"].b"),
        ("", "invalid field path ''; write it as a.b, a[0].b or a[\"key\"].b"),
    ],
)
def test_paths_that_lead_nowhere(path: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Document(JSON, "m.json").edited({path: 1})
    assert str(raised.value) == message


def test_an_edit_that_would_change_more_is_refused() -> None:
    shared = Document("a: &x {k: 1}\nb: *x\n", "m.yaml")
    with pytest.raises(ConfigError, match=r"^m\.yaml: b\.k cannot be changed without changing other values$"):
        shared.edited({"b.k": 2})


def test_a_file_that_contains_itself_is_refused() -> None:
    endless = Document("a: &x {k: *x}\nb: 1\n", "m.yaml")
    with pytest.raises(ConfigError, match=r"^m\.yaml: nested too deeply$"):
        endless.edited({"b": 2})


_KEYS = st.text("abc_", min_size=1, max_size=3)
_SCALARS = st.booleans() | st.integers(-99, 99) | st.text("ab: #{}'\"é", max_size=4) | st.floats(0, 1)
_TREES = st.dictionaries(_KEYS, _SCALARS | st.dictionaries(_KEYS, _SCALARS, max_size=3), max_size=4)


@given(_TREES, _KEYS, _SCALARS | st.none(), st.sampled_from(["json", "indented", "yaml", "flow"]))
def test_any_edit_of_any_file_is_that_edit_alone(
    tree: dict[str, Any], key: str, value: DocumentValue | None, style: str
) -> None:
    text = {
        "json": lambda: json.dumps(tree),
        "indented": lambda: json.dumps(tree, indent=2, ensure_ascii=False),
        "yaml": lambda: yaml.safe_dump(tree, allow_unicode=True),
        "flow": lambda: yaml.safe_dump(tree, default_flow_style=True),
    }[style]()
    source = "m.json" if style in {"json", "indented"} else "m.yaml"
    edited = Document(text, source).edited({key: value}).text
    expected = {name: content for name, content in tree.items() if name != key}
    if value is not None:
        expected[key] = value
    assert (json.loads if source == "m.json" else yaml.safe_load)(edited) == expected
