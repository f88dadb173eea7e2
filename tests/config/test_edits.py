"""What edits look like: the user should find their own file again, and see at a glance what is new."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import pytest

from tuner.config import edits
from tuner.config.config import EMPTY, ModelConfig, Value
from tuner.core.errors import ConfigError

Changes = Mapping[str, Value | None]

USERS = """\
# The ranking model. Ask Ann before you touch the queue policy!
name: "rank"
max_batch_size: 0 # for now

instance_group [
  {
    count: 1
    kind: KIND_GPU
    gpus: [ 0, 1 ] # the two small ones
  },
  {
    count: 2
    kind: KIND_CPU
    rate_limiter {
      resources [ { name: "R1" count: 4 }, { name: "R2" global: true count: 2 } ]
      priority: 2
    }
  }
]
dynamic_batching {
  preserve_ordering: true
  priority_levels: 2
  default_priority_level: 1
  default_queue_policy { timeout_action: DELAY max_queue_size: 100 }
  priority_queue_policy { key: 2 value { default_timeout_microseconds: 500 } }
}
optimization { execution_accelerators {
  gpu_execution_accelerator : [ { name : "tensorrt"
    parameters { key: "precision_mode" value: "FP16" } } ]
}}
parameters: { key: "EXECUTION_ENV_PATH", value: { string_value: "$$TRITON_MODEL_DIRECTORY/env.tar.gz" } }
a_field_of_next_year { mode: FASTER, levels: [ 1, 2 ] }
"""


def edited(before: str, changes: Changes) -> str:
    return ModelConfig.parse(before, "f").edited(changes).text


def test_all_that_is_the_users_own_survives_a_candidate() -> None:
    after = edited(
        USERS,
        {
            "max_batch_size": 16,
            "instance_group[*].count": 3,
            "dynamic_batching": EMPTY,
            "dynamic_batching.preferred_batch_size": (4, 8),
            "dynamic_batching.max_queue_delay_microseconds": 500,
        },
    )
    changed = [line for line in difflib.ndiff(USERS.splitlines(), after.splitlines()) if line[0] in "+-"]
    assert changed == [
        "- max_batch_size: 0 # for now",
        "+ max_batch_size: 16 # for now",
        "-     count: 1",
        "+     count: 3",
        "-     count: 2",
        "+     count: 3",
        "+   preferred_batch_size: [ 4, 8 ]",
        "+   max_queue_delay_microseconds: 500",
    ]


def test_switching_off_what_a_candidate_had_switched_on_gives_the_file_back() -> None:
    on = edited("name: 'x'\n", {"dynamic_batching": EMPTY, "instance_group[*].count": 2})
    assert edited(on, {"dynamic_batching": None, "instance_group": None}) == "name: 'x'\n"


@pytest.mark.parametrize(
    ("before", "changes", "after"),
    [
        ("max_batch_size: 8 # ok\n", {"max_batch_size": 16}, "max_batch_size: 16 # ok\n"),
        ("max_batch_size: 0\n", {"max_batch_size": 1}, "max_batch_size: 1\n"),
        ("max_batch_size: 8\n", {"max_batch_size": 0}, "max_batch_size: 0\n"),
        ("backend: 'a' # 1\n  'b';\n", {"backend": 'x"\\\n\té\x01'}, 'backend: "x\\"\\\\\\n\\té\\001";\n'),
        ("instance_group { kind: 2 }", {"instance_group[0].kind": "KIND_GPU"}, "instance_group { kind: KIND_GPU }"),
        (
            "dynamic_batching < preserve_ordering: t, >",
            {"dynamic_batching.preserve_ordering": False},
            "dynamic_batching < preserve_ordering: false, >",
        ),
        ("new_a: OLD new_b: 'OLD'", {"new_a": "NEW", "new_b": "NEW"}, 'new_a: NEW new_b: "NEW"'),
        ("new_a { b: [1, 2] }", {"new_a.b[1]": 5, "new_a.c": "word"}, 'new_a { b: [1, 5] c: "word" }'),
        ("new_a { }", {"new_a.b.c": "WORD", "new_a.d": 0.5}, "new_a {\n  b {\n    c: WORD\n  }\n  d: 0.5\n}"),
    ],
)
def test_a_value_is_replaced_where_it_stands(before: str, changes: Changes, after: str) -> None:
    assert edited(before, changes) == after


@pytest.mark.parametrize(
    "text",
    [
        "max_batch_size: 0x8",
        "instance_group { count: 1 } instance_group { count: 01 }",
        "dynamic_batching { # mine\n}",
        "dynamic_batching { preferred_batch_size: 4 preferred_batch_size: [8] }",
        "optimization { cuda { graphs: t } }",
        "instance_group { kind: 2 }",
        "parameters { key: 'k' value { string_value: 'a' 'b' } }",
        "sequence_batching { direct { minimum_slot_utilization: .5f } }",
        "new_thing { share: 0.50 level: HIGH }",
    ],
)
def test_setting_what_is_there_changes_no_byte(text: str) -> None:
    changes: dict[str, Value] = {
        "max_batch_size": 8,
        "instance_group[*].count": 1,
        "dynamic_batching": EMPTY,
        "dynamic_batching.preferred_batch_size": (4, 8),
        "optimization.cuda.graphs": True,
        "instance_group[0].kind": "KIND_CPU",
        'parameters["k"].string_value': "ab",
        "sequence_batching.direct.minimum_slot_utilization": 0.5,
        "new_thing.share": 0.5,
        "new_thing.level": "HIGH",
    }
    config = ModelConfig.parse(text, "f")
    there = {path: value for path, value in changes.items() if not path.startswith("new") or "new" in text}
    there = {path: value for path, value in there.items() if config.holds(path)}
    assert there
    assert config.edited(there) == config


def test_no_changes_are_no_change() -> None:
    assert edited("  \t# only a comment", {}) == "  \t# only a comment"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "[ 1, 2 ]"),
        ("dims: [ 9 ]", "[ 1, 2 ]"),
        ("dims: [9]", "[1, 2]"),
        ("dims: 9", "[ 1, 2 ]"),
    ],
)
def test_a_list_is_written_as_the_file_writes_lists(before: str, after: str) -> None:
    text = f"input {{ {before} }}\ndynamic_batching {{ preferred_batch_size: 4 }}\n"
    assert f"preferred_batch_size: {after} }}" in edited(text, {"dynamic_batching.preferred_batch_size": (1, 2)})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("gpus: 1 # a\n  gpus: 2\n  count: 1\n", "gpus: [ 7, 8 ]\n  count: 1\n"),
        ("gpus: [1]\n  count: 1\n  gpus: [2,\n    3]\n", "count: 1\n  gpus: [7, 8]\n"),
        ("gpus: 1 gpus: 2 count: 1\n", "gpus: [ 7, 8 ] count: 1\n"),
        ("gpus: []\n", "gpus: [ 7, 8 ]\n"),
    ],
)
def test_a_repeated_field_becomes_one_list(before: str, after: str) -> None:
    text = "instance_group {\n  %s}\n"
    assert edited(text % before, {"instance_group[0].gpus": (7, 8)}) == text % after


def test_one_value_for_a_repeated_field_is_a_list_of_one() -> None:
    path = "dynamic_batching.preferred_batch_size"
    config = ModelConfig.parse("dynamic_batching { preferred_batch_size: [ 4, 8 ] }", "f")
    assert config.edited({path: 4}).text == "dynamic_batching { preferred_batch_size: [ 4 ] }"
    assert config.edited({path: 4}).edited({path: (4,)}).values(path) == (4,)


@pytest.mark.parametrize(
    ("before", "changes", "after"),
    [
        ("", {"max_batch_size": 4}, "max_batch_size: 4\n"),
        ("# note", {"max_batch_size": 4}, "# note\nmax_batch_size: 4\n"),
        ("name: 'x'", {"max_batch_size": 4}, "name: 'x'\nmax_batch_size: 4"),
        ("name: 'x'\n# the end\n", {"max_batch_size": 4}, "name: 'x'\nmax_batch_size: 4\n# the end\n"),
        ("name: 'x'; # note\r\n", {"max_batch_size": 4}, "name: 'x'; # note\r\nmax_batch_size: 4;\r\n"),
        ("  name: 'x'\n", {"max_batch_size": 4}, "  name: 'x'\n  max_batch_size: 4\n"),
        ("name: 'x' backend: 'y'\n", {"max_batch_size": 4}, "name: 'x' backend: 'y'\nmax_batch_size: 4\n"),
        ("name: 'x'\n", {"dynamic_batching": EMPTY}, "name: 'x'\ndynamic_batching { }\n"),
        (
            "name: 'x'\n",
            {"dynamic_batching.preferred_batch_size": (4,), "dynamic_batching.preserve_ordering": True},
            "name: 'x'\ndynamic_batching {\n  preferred_batch_size: [ 4 ]\n  preserve_ordering: true\n}\n",
        ),
        (
            "input {\n\tname: 'X'\n}\n",
            {"dynamic_batching.max_queue_delay_microseconds": 5},
            "input {\n\tname: 'X'\n}\ndynamic_batching {\n\tmax_queue_delay_microseconds: 5\n}\n",
        ),
        (
            "dynamic_batching { }\n",
            {"dynamic_batching.default_queue_policy.max_queue_size": 5},
            "dynamic_batching {\n  default_queue_policy {\n    max_queue_size: 5\n  }\n}\n",
        ),
        (
            "dynamic_batching {\n}\n",
            {"dynamic_batching.preserve_ordering": True},
            "dynamic_batching {\n  preserve_ordering: true\n}\n",
        ),
        (
            "dynamic_batching {\n    # tune me\n}\n",
            {"dynamic_batching.preserve_ordering": True},
            "dynamic_batching {\n    # tune me\n  preserve_ordering: true\n}\n",
        ),
        (
            "dynamic_batching {}; # on\n",
            {"dynamic_batching.preserve_ordering": True},
            "dynamic_batching {\n  preserve_ordering: true\n}; # on\n",
        ),
        (
            "dynamic_batching { } name: 'x'\n",
            {"dynamic_batching.preserve_ordering": True},
            "dynamic_batching { preserve_ordering: true } name: 'x'\n",
        ),
        (
            "dynamic_batching {\n    preserve_ordering: true # yes\n    # no more\n}\n",
            {"dynamic_batching.priority_levels": 2},
            "dynamic_batching {\n    preserve_ordering: true # yes\n    priority_levels: 2\n    # no more\n}\n",
        ),
        (
            "dynamic_batching {\n    preserve_ordering: true }\n",
            {"dynamic_batching.priority_levels": 2},
            "dynamic_batching {\n    preserve_ordering: true\n    priority_levels: 2 }\n",
        ),
        (
            "dynamic_batching { preserve_ordering: true }\n",
            {"dynamic_batching.priority_levels": 2},
            "dynamic_batching { preserve_ordering: true priority_levels: 2 }\n",
        ),
        (
            "instance_group [{ count: 1, kind: KIND_CPU }]\n",
            {"instance_group[0].rate_limiter.priority": 2},
            "instance_group [{ count: 1, kind: KIND_CPU, rate_limiter { priority: 2 } }]\n",
        ),
        (
            "instance_group [{ count: 1; kind: KIND_CPU; }]\n",
            {"instance_group[0].passive": True},
            "instance_group [{ count: 1; kind: KIND_CPU; passive: true; }]\n",
        ),
        ("model_warmup [ { } ]", {"model_warmup[0].count": 1}, "model_warmup [ { count: 1 } ]"),
        ("model_warmup [\n  { }\n]", {"model_warmup[0].count": 1}, "model_warmup [\n  {\n    count: 1\n  }\n]"),
    ],
)
def test_a_new_field_follows_the_style_of_the_file(before: str, changes: Changes, after: str) -> None:
    assert edited(before, changes) == after


@pytest.mark.parametrize(
    ("before", "changes", "after"),
    [
        ("", {"instance_group[*].count": 2}, "instance_group {\n  count: 2\n}\n"),
        ("", {"instance_group[0].count": 2}, "instance_group {\n  count: 2\n}\n"),
        ("", {"instance_group": EMPTY}, "instance_group { }\n"),
        ("instance_group { }", {"instance_group[*]": EMPTY}, "instance_group { }"),
        ("instance_group []\n", {"instance_group[*].count": 2}, "instance_group {\n  count: 2\n}\n"),
        ("name: 'x' instance_group: [], ", {"instance_group[*].count": 2}, "name: 'x' instance_group { count: 2 }, "),
        (
            "instance_group { count: 1 }\nname: 'x'\n",
            {"instance_group[1].count": 2},
            "instance_group { count: 1 }\ninstance_group {\n  count: 2\n}\nname: 'x'\n",
        ),
        (
            "name: 'x' instance_group { count: 1 } backend: 'y'\n",
            {"instance_group[1].count": 2},
            "name: 'x' instance_group { count: 1 }\ninstance_group {\n  count: 2\n} backend: 'y'\n",
        ),
        (
            "model_repository_agents { agents { name: 'a' } }",
            {"model_repository_agents.agents[1].name": "b"},
            "model_repository_agents { agents { name: 'a' } agents { name: \"b\" } }",
        ),
        (
            "instance_group [ { count: 1 } ]\n",
            {"instance_group[1].count": 2},
            "instance_group [ { count: 1 }, { count: 2 } ]\n",
        ),
        (
            "instance_group [\n    {\n        count: 1\n    } # one\n]\n",
            {"instance_group[1].count": 2},
            "instance_group [\n    {\n        count: 1\n    }, # one\n    {\n        count: 2\n    }\n]\n",
        ),
        (
            "instance_group [\n  { count: 1 } ]\n",
            {"instance_group[1].count": 2},
            "instance_group [\n  { count: 1 },\n  {\n    count: 2\n  } ]\n",
        ),
    ],
)
def test_a_new_element_joins_the_others(before: str, changes: Changes, after: str) -> None:
    assert edited(before, changes) == after


@pytest.mark.parametrize(
    ("before", "changes", "after"),
    [
        (
            "",
            {'parameters["a\\"b"].string_value': "x"},
            'parameters {\n  key: "a\\"b"\n  value {\n    string_value: "x"\n  }\n}\n',
        ),
        (
            "parameters { key: 'a' value { string_value: 'x' } }",
            {'parameters["a"].string_value': "y"},
            "parameters { key: 'a' value { string_value: \"y\" } }",
        ),
        (
            "parameters { key: 'a' }",
            {'parameters["a"].string_value': "y"},
            "parameters { key: 'a' value { string_value: \"y\" } }",
        ),
        (
            "parameters [ { key: 'a' } ]",
            {'parameters["b"]': EMPTY},
            "parameters [ { key: 'a' }, { key: \"b\" value { } } ]",
        ),
        ("", {'metric_tags["a"]': "x"}, 'metric_tags {\n  key: "a"\n  value: "x"\n}\n'),
        (
            "dynamic_batching { priority_levels: 2 }",
            {"dynamic_batching.priority_queue_policy[2].max_queue_size": 3},
            "dynamic_batching { priority_levels: 2 priority_queue_policy { key: 2 value { max_queue_size: 3 } } }",
        ),
        ("parameters { value { string_value: 'x' } }", {'parameters[""].string_value': None}, ""),
        (
            "parameters [ { key: 'a' value { string_value: 'x' } }, { key: 'b' value { string_value: 'y' } } ]",
            {'parameters["a"].string_value': None},
            "parameters [ { key: 'b' value { string_value: 'y' } } ]",
        ),
        (
            "parameters { key: 'a' value { string_value: 'x' new: 1 } }",
            {'parameters["a"].string_value': None},
            "parameters { key: 'a' value { new: 1 } }",
        ),
        (
            "parameters { key: 'a' value { string_value:'' } } parameters { key: 'b' value { string_value: '' z: 1 } }",
            {"parameters[*].string_value": None},
            "parameters { key: 'b' value { z: 1 } }",
        ),
        (
            "model_warmup { name: 'w' inputs { key: 'X' value { dims: 4 zero_data: t } } }",
            {'model_warmup[0].inputs["X"].zero_data': None},
            "model_warmup { name: 'w' inputs { key: 'X' value { dims: 4 } } }",
        ),
        ("parameters { key: 'a' }\nparameters { key: 'b' }\n", {'parameters["a"]': None}, "parameters { key: 'b' }\n"),
        ("metric_tags { key: 'a' value: 'x' }\nname: 'n'", {'metric_tags["a"]': None}, "name: 'n'"),
        ("parameters { key: 'a' }\nparameters { key: 'b' }\n", {"parameters": None}, ""),
    ],
)
def test_entries_of_maps_go_by_their_key(before: str, changes: Changes, after: str) -> None:
    assert edited(before, changes) == after


@pytest.mark.parametrize(
    ("before", "path", "after"),
    [
        ("name: 'x'\nmax_batch_size: 8\n", "max_batch_size", "name: 'x'\n"),
        ("max_batch_size: 8\n", "backend", "max_batch_size: 8\n"),
        ("# a\n  max_batch_size: 8 # b\n# c\n", "max_batch_size", "# a\n# c\n"),
        ("name: 'x'\nmax_batch_size: 8", "max_batch_size", "name: 'x'\n"),
        ("name: 'x' max_batch_size: 8 # b\n", "max_batch_size", "name: 'x' # b\n"),
        ("name: 'x', max_batch_size: 8 # b\n", "max_batch_size", "name: 'x' # b\n"),
        ("name: 'x', max_batch_size: 8, backend: 'y'\n", "max_batch_size", "name: 'x', backend: 'y'\n"),
        ("  name: 'x' max_batch_size: 8\n", "name", "  max_batch_size: 8\n"),
        ("a{}name:'x'max_batch_size: 8\n", "name", "a{}max_batch_size: 8\n"),
        ("name: 'x'\r\nmax_batch_size: 8 \r\nbackend: 'y'\r\n", "max_batch_size", "name: 'x'\r\nbackend: 'y'\r\n"),
        ("dynamic_batching {\n  priority_levels: 2\n}\n", "dynamic_batching", ""),
        (
            "dynamic_batching {\n  priority_levels: 2\n}\n",
            "dynamic_batching.priority_levels",
            "dynamic_batching {\n}\n",
        ),
        ("dynamic_batching { priority_levels: 2 }", "dynamic_batching.priority_levels", "dynamic_batching { }"),
        ("dynamic_batching {priority_levels:2}", "dynamic_batching.priority_levels", "dynamic_batching {}"),
        (
            "dynamic_batching {preserve_ordering: t priority_levels: 2}",
            "dynamic_batching.priority_levels",
            "dynamic_batching {preserve_ordering: t}",
        ),
        (
            "dynamic_batching { priority_levels: 2\n  preserve_ordering: t\n}",
            "dynamic_batching.priority_levels",
            "dynamic_batching {\n  preserve_ordering: t\n}",
        ),
        ("instance_group { gpus: 1 gpus: [2, 3] count: 1 }", "instance_group[*].gpus", "instance_group { count: 1 }"),
        ("instance_group { count: 1 }\ninstance_group { count: 2 }\n", "instance_group", ""),
        ("instance_group [ { count: 1 }, { count: 2 } ]", "instance_group[*]", ""),
        ("instance_group [ { count: 1 }, { count: 2 } ]", "instance_group[0]", "instance_group [ { count: 2 } ]"),
        ("instance_group [ { count: 1 }, { count: 2 } ]", "instance_group[1]", "instance_group [ { count: 1 } ]"),
        (
            "instance_group [ { count: 1 } , { count: 2 } ]",
            "instance_group[2]",
            "instance_group [ { count: 1 } , { count: 2 } ]",
        ),
        ("instance_group [ { } # a\n, { count: 2 } ]", "instance_group[0]", "instance_group [ # a\n { count: 2 } ]"),
        ("instance_group [\n  { },\n  { } # b\n]", "instance_group[1]", "instance_group [\n  { }\n]"),
        ("instance_group [\n  { }, # a\n  { } # b\n]", "instance_group[0]", "instance_group [\n  { } # b\n]"),
        ("instance_group [\n  {\n  }, {\n  }\n]", "instance_group[0]", "instance_group [\n  {\n  }\n]"),
        ("new_thing { a: 1, b: 2 }", "new_thing.b", "new_thing { a: 1 }"),
    ],
)
def test_a_removed_field_takes_its_line_and_its_comma(before: str, path: str, after: str) -> None:
    assert edited(before, {path: None}) == after


def test_an_entry_that_a_candidate_had_added_goes_as_a_whole() -> None:
    before = "name: 'x'\n"
    on = edited(before, {'parameters["intra_op_thread_count"].string_value': "2"})
    assert "intra_op_thread_count" in on
    assert edited(on, {'parameters["intra_op_thread_count"].string_value': None}) == before


def test_an_empty_list_is_no_field() -> None:
    assert edited("instance_group { gpus: [ 1 ] }", {"instance_group[0].gpus": ()}) == "instance_group { }"


def test_a_value_given_twice_is_given_once_after_an_edit() -> None:
    # The text format has no way to see that 0 was given: it takes this, and the last one counts.
    text = "max_batch_size: 0\nname: 'x'\nmax_batch_size: 8\n"
    assert edited(text, {"max_batch_size": 4}) == "name: 'x'\nmax_batch_size: 4\n"
    assert edited(text, {"max_batch_size": None}) == "name: 'x'\n"


def test_changes_are_made_in_order() -> None:
    changes: Changes = {"sequence_batching": None, "dynamic_batching": EMPTY, "instance_group[*].kind": "KIND_CPU"}
    text = "sequence_batching { }\n"
    assert edited(text, changes) == "dynamic_batching { }\ninstance_group {\n  kind: KIND_CPU\n}\n"
    later_first = dict(reversed(list(changes.items())))
    assert edited(text, later_first) == "instance_group {\n  kind: KIND_CPU\n}\ndynamic_batching { }\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_batch_size": "8"}, "max_batch_size: must be a whole number from -2147483648 to 2147483647, got '8'"),
        ({"max_batch_size": True}, "max_batch_size: must be a whole number"),
        ({"max_batch_size": 2.0}, "max_batch_size: must be a whole number"),
        ({"max_batch_size": 2**31}, "got 2147483648"),
        ({"dynamic_batching.max_queue_delay_microseconds": -1}, "from 0 to 18446744073709551615, got -1"),
        ({"max_batch_size": (8,)}, "max_batch_size: must be one value, got [8]"),
        ({"max_batch_size": EMPTY}, "max_batch_size: is not a message"),
        ({"backend": 3}, "backend: must be a string, got 3"),
        ({"backend": "\udcff"}, r"'\udcff' cannot be written as UTF-8"),
        ({"dynamic_batching.preserve_ordering": 1}, "must be true or false, got 1"),
        ({"dynamic_batching": 5}, "dynamic_batching: is a message; set its fields"),
        ({"dynamic_batching.preferred_batch_size": (4, "x")}, "must be a whole number"),
        ({"instance_group[*].kind": "KIND_CPUS"}, "unknown Kind 'KIND_CPUS'; did you mean 'KIND_CPU'?"),
        ({"sequence_batching.direct.minimum_slot_utilization": "x"}, "must be a number, got 'x'"),
        ({"parameters": EMPTY}, "parameters: is a map; name the entry"),
        ({"parameters[*].string_value": "x"}, "parameters has no entries; name the key to add"),
        ({"instance_group[2].count": 1}, "no instance_group[2]; the next one to add is instance_group[1]"),
        (
            {"model_warmup[1].inputs['x'].zero_data": True},
            "no model_warmup[1]; the next one to add is model_warmup[0]",
        ),
        ({"new_thing": 1}, "new_thing is a message; set its fields"),
        ({"new_thing.a": EMPTY}, "a is not a message"),
        ({"new_thing.a.b": 1}, "a is not a message"),
        (
            {"sequence_batching": EMPTY, "dynamic_batching": EMPTY},
            'after the edit of sequence_batching, dynamic_batching: f:4:1: Field "dynamic_batching" is specified along',
        ),
        (
            {"dynamic_batching": None, "dynamic_batching.priority_levels": 2},
            (
                "f: edits of dynamic_batching, dynamic_batching.priority_levels contradict each other: "
                "dynamic_batching would be undone"
            ),
        ),
        (
            {"dynamic_batching.priority_levels": 2, "dynamic_batching": None},
            "contradict each other: dynamic_batching.priority_levels would be undone",
        ),
    ],
)
def test_an_edit_that_cannot_be_is_an_error(changes: Changes, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        edited("instance_group { count: 1 }\nnew_thing { a: 1 }\n", changes)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("kind: KIND_CPU", "kind: KIND_GPU"),
        ("preserve_ordering: true", ""),
        ("gpus: [ 0, 1 ]", "gpus: [ 1, 0 ]"),
        ('value: "FP16"', 'value: "FP32"'),
        ("levels: [ 1, 2 ]", "levels: [ 1, 3 ]"),
        ("max_batch_size: 16", "max_batch_size: 8"),
    ],
)
def test_a_text_that_says_anything_else_than_the_edit_is_refused(
    monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    put = edits.put
    monkeypatch.setattr(edits, "put", lambda *arguments: put(*arguments).replace(old, new))
    with pytest.raises(ConfigError, match="f: the edit of max_batch_size would change other fields, too"):
        edited(USERS, {"max_batch_size": 16})


class TestNames:
    ACCELERATORS = "optimization.execution_accelerators.gpu_execution_accelerator"

    def test_an_accelerator_is_added_by_its_name(self) -> None:
        trt = f'{self.ACCELERATORS}["tensorrt"]'
        config = ModelConfig.parse('name: "m" # mine\n', "c").edited({trt: EMPTY, f'{trt}.parameters["a"]': "1"})
        assert config.text.startswith('name: "m" # mine\n')
        (accelerator,) = config.proto.optimization.execution_accelerators.gpu_execution_accelerator
        assert (accelerator.name, dict(accelerator.parameters)) == ("tensorrt", {"a": "1"})
        assert config.values(trt) == (EMPTY,)
        assert config.values(f'{trt}.parameters["a"]') == ("1",)

    def test_another_accelerator_stays(self) -> None:
        text = (
            "optimization { execution_accelerators {\n"
            '  gpu_execution_accelerator [ { name: "cuda" parameters { key: "a" value: "1" } } ]\n} }\n'
        )
        config = ModelConfig.parse(text, "c")
        both = config.edited({f'{self.ACCELERATORS}["tensorrt"]': EMPTY})
        names = [each.name for each in both.proto.optimization.execution_accelerators.gpu_execution_accelerator]
        assert names == ["cuda", "tensorrt"]
        assert both.edited({f'{self.ACCELERATORS}["tensorrt"]': None}).text == text
        without = both.edited({f'{self.ACCELERATORS}["cuda"]': None})
        (left,) = without.proto.optimization.execution_accelerators.gpu_execution_accelerator
        assert left.name == "tensorrt"

    def test_a_resource_of_the_rate_limiter_has_a_name(self) -> None:
        text = "instance_group [ { count: 1 }, { count: 2 } ]\n"
        path = 'instance_group[*].rate_limiter.resources["r"].count'
        config = ModelConfig.parse(text, "c").edited({path: 2})
        assert config.values(path) == (2, 2)
        assert config.edited({path: 3}).values(path) == (3, 3)

    def test_a_field_of_text_is_known(self) -> None:
        config = ModelConfig.parse("", "c")
        assert config.takes_text('parameters["threads"].string_value')
        assert config.takes_text(f'{self.ACCELERATORS}["x"].parameters["y"]')
        assert not config.takes_text("max_batch_size")
        assert not config.takes_text("instance_group[*].kind")
