from __future__ import annotations

import math

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2

from tuner.config.literals import EscapeError, in_python_spelling, number, spelled, unquoted


def as_protobuf_reads(literal: str) -> str:
    return str(text_format.Parse(f"name: {literal}", model_config_pb2.ModelConfig()).name)


@pytest.mark.parametrize(
    ("literal", "content"),
    [
        ('""', b""),
        ("'it is'", b"it is"),
        (r'"\a\b\f\n\r\t\v\\\?\'\""', b"\a\b\f\n\r\t\v\\?'\""),
        (r'"\1\12\123\1234"', b"\1\n\123\1234"),
        (r'"\x4\x41\x411"', b"\x04AA1"),
        (r'"\u00e9\U0001F600"', "é😀".encode()),
        (r'"\ud83d\ude00"', "😀".encode()),
        ('"é€😀"', "é€😀".encode()),
        (r'"\303\251"', "é".encode()),
        (r'"\\n"', b"\\n"),
    ],
)
def test_a_string_literal_means_its_bytes(literal: str, content: bytes) -> None:
    assert unquoted(literal) == content


@pytest.mark.parametrize(
    ("literal", "sequence", "offset"),
    [
        (r'"ab\d"', r"\d", 3),
        (r'"\400"', r"\400", 1),
        (r'"\x"', r"\x", 1),
        (r'"\u12"', r"\u", 1),
        (r'"\ud83d"', r"\u", 1),
        (r'"\U00110000"', r"\U", 1),
        (r'"\X41"', r"\X", 1),
        (r'"\N{DASH}"', r"\N", 1),
    ],
)
def test_an_escape_that_there_is_not_is_named_with_its_place(literal: str, sequence: str, offset: int) -> None:
    with pytest.raises(EscapeError) as raised:
        unquoted(literal)
    assert str(raised.value) == f"invalid escape sequence {sequence}"
    assert raised.value.offset == offset


@given(st.text())
def test_a_spelled_string_reads_back(text: str) -> None:
    assert unquoted(spelled(text)) == text.encode()
    assert "\n" not in spelled(text)
    assert as_protobuf_reads(spelled(text)) == text


@given(st.text(), st.booleans())
def test_a_string_as_protobuf_spells_it_reads_back(text: str, as_utf8: bool) -> None:  # noqa: FBT001 (drawn)
    written = text_format.MessageToString(model_config_pb2.ModelConfig(name=f"x{text}"), as_utf8=as_utf8)
    assert unquoted(written.removeprefix("name: ").removesuffix("\n")) == f"x{text}".encode()


@given(st.lists(st.sampled_from([r"\?", r"\\", r"\ud83d\ude00", r"\u005c", r"\u0041", r"\134", "?", "a", "é"])))
def test_the_python_spelling_means_the_same_to_python(parts: list[str]) -> None:
    literal = f'"{"".join(parts)}"'
    respelled = in_python_spelling(literal)
    assert len(respelled) <= len(literal)
    assert as_protobuf_reads(respelled).encode() == unquoted(literal)


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        ("0", 0),
        ("-8", -8),
        ("0x1F", 31),
        ("-0X1f", -31),
        ("017", 15),
        ("1.", 1.0),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1E+3f", 1000.0),
        ("2F", 2.0),
        ("0.5", 0.5),
        ("-inf", -math.inf),
        ("Infinity", math.inf),
    ],
)
def test_a_number_means_its_value(literal: str, value: float) -> None:
    found = number(literal)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("literal", ["", "-", "08", "00.5", "1.2.3", "0x", "1_000", "+5", "1e", "kind", "9" * 5000])
def test_what_is_no_number_has_no_value(literal: str) -> None:
    assert number(literal) is None


def test_nan_is_a_number() -> None:
    assert math.isnan(number("NaN") or 0)


@given(st.floats(allow_nan=False) | st.integers(-(2**63), 2**64 - 1))
def test_a_spelled_number_reads_back(value: float) -> None:
    assert number(spelled(value)) == value


def test_booleans_are_words() -> None:
    assert [spelled(True), spelled(False)] == ["true", "false"]
