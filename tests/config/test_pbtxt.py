from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.random_configs import Handwriting, random_config

from tuner.config.pbtxt import ListValue, MessageValue, Scalar, Slot, descendants, parse, slots
from tuner.config.tokens import tokens
from tuner.core.errors import ConfigError

SAMPLE = """\
# a model
name: 'ml' "p" # its name
input [ { dims: [ 1, -2 ] }, < dims: 3; > ],
[some.where/is.an.extension] { on: true }
12: 0x1F;
"""


def read(text: str) -> MessageValue:
    return parse(text, "f")


def piece(text: str, slot: Slot) -> str:
    return text[slot.node.start : slot.node.end]


def test_the_tree_says_where_everything_stands() -> None:
    fields = read(SAMPLE).fields
    assert [SAMPLE[f.start : f.end] for f in fields] == [
        "name: 'ml' \"p\"",
        "input [ { dims: [ 1, -2 ] }, < dims: 3; > ],",
        "[some.where/is.an.extension] { on: true }",
        "12: 0x1F;",
    ]
    assert [f.name for f in fields] == ["name", "input", "[some.where/is.an.extension]", "12"]
    assert [f.separator for f in fields] == ["", ",", "", ";"]


def test_scalars_have_their_values() -> None:
    root = read("a: 'x' \"\\x79\" b: -8 c: KIND_CPU d: -inf e: 1.5f f: true g: '\\377'")
    values = [(slot.node.kind, slot.node.value) for slot in slots(root) if isinstance(slot.node, Scalar)]
    assert values == [
        ("string", "xy"),
        ("number", -8),
        ("name", "KIND_CPU"),
        ("number", float("-inf")),
        ("number", 1.5),
        ("name", "true"),
        ("string", "\udcff"),
    ]


def test_slots_are_the_values_of_single_fields_and_of_lists() -> None:
    root = read("a: 1 b: 2 a: [3, 4] a []")
    assert [(slot.node.start, slot.index) for slot in slots(root, "a")] == [(3, None), (14, 0), (17, 1)]


def test_descendants_go_into_messages() -> None:
    text = "a { b: 1 c [ { d: 2 }, < > ] } e: 3"
    assert [piece(text, slot) for slot in descendants(read(text))] == [
        "{ b: 1 c [ { d: 2 }, < > ] }",
        "1",
        "{ d: 2 }",
        "2",
        "< >",
        "3",
    ]


def test_a_list_knows_its_commas() -> None:
    text = "a: [1 , 2,3]"
    value = read(text).fields[0].value
    assert isinstance(value, ListValue)
    assert value.commas == (6, 9)


def test_comments_and_white_space_may_stand_everywhere() -> None:
    text = "#1\n a #2\n :#3\n - #4\n 5 #5\n ; [ #6\n x . y #7\n ] #8\n { #9\n }\r\n\t\v\f"
    root = read(text)
    assert [f.name for f in root.fields] == ["a", "[x.y]"]
    assert next(slots(root, "a")).node == Scalar(text.index("-"), text.index("5 #5") + 1, "number", -5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb 2", "f:2:3: expected ':' or '{' after 'b', found '2'"),
        ("a: {\n  b: 1\n", "f:3:1: expected '}' for the '{' of line 1, found the end of the file"),
        ("a <\n  b: 1\n}", "f:3:1: expected '>' for the '<' of line 1, found '}'"),
        ("a { } }", "f:1:7: expected a field name, found '}'"),
        ("a:", "f:1:3: expected a value, found the end of the file"),
        ("a: [1, ]", "f:1:8: expected a value, found ']'"),
        ("a: [1 2]", "f:1:7: expected ',' or ']', found '2'"),
        ("a: [[1]]", "f:1:5: expected a value, found '['"),
        ("a [1]", "f:1:4: expected '{', found '1'"),
        ("a: [", "f:1:5: expected a value, found the end of the file"),
        ("a: 'x\ny'", "f:1:4: the string is not closed on its line"),
        ('a: "x', "f:1:4: the string is not closed on its line"),
        (r'a: "x" "y\d"', r"f:1:10: invalid escape sequence \d"),
        ("a: 1kind: X", "f:1:4: expected a number, found '1kind'"),
        ("a: 08", "f:1:4: expected a number, found '08'"),
        ("a: -x", "f:1:5: expected a number, found 'x'"),
        ("a: -", "f:1:5: expected a number, found the end of the file"),
        (f"a: {'9' * 2000}", f"f:1:4: expected a number, found '{'9' * 37}...'"),
        ("a: +1", "f:1:4: '+' has no meaning here"),
        ("a: 1 // no", "f:1:6: expected a field name, found '/'"),
        ("a\u00a0: 1", "f:1:2: '\\xa0' has no meaning here"),
        ("\ufeffa: 1", "f:1:1: there is a byte order mark; save the file as UTF-8 without one"),
        ("a: 1,, b: 2", "f:1:6: expected a field name, found ','"),
        ("[]: 1", "f:1:2: expected the name of an extension and ']', found ']'"),
        ("[a b: 1", "f:1:5: expected the name of an extension and ']', found ':'"),
        ("1.5: 1", "f:1:1: expected a field name, found '1.5'"),
        ("# 1\n\n\t\t?", "f:3:3: '?' has no meaning here"),
    ],
)
def test_an_error_says_where_and_what(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(text)
    assert str(raised.value) == message


def test_messages_nest_deeply_but_not_without_end() -> None:
    assert len(list(descendants(read("a { " * 100 + "} " * 100)))) == 100
    with pytest.raises(ConfigError, match="f:1:403: messages nest deeper than 100"):
        read("a { " * 5000)


@given(st.randoms(use_true_random=True))
def test_the_spans_tile_the_text(rng: random.Random) -> None:
    text = Handwriting(rng).written(random_config(rng))
    root = read(text)
    ends = [0]
    for field in root.fields:
        assert field.start >= ends[-1]
        assert field.value.end <= field.end
        assert field.end - field.value.end == 0 or text[field.end - 1] == field.separator
        ends.append(field.end)
    between = "".join(text[end : field.start] for end, field in zip(ends, root.fields, strict=False))
    assert [token.kind for token in tokens(between, "f")] == ["end"]
    for slot in descendants(root):
        assert slot.message.inner <= slot.field.start <= slot.node.start < slot.node.end <= slot.field.end
        assert slot.field.end <= slot.message.close
        if isinstance(slot.node, MessageValue):
            assert text[slot.node.start] + text[slot.node.close] in {"{}", "<>"}
