from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.options.parameters import Parameter, parse_parameter


def refusal(text: str) -> str:
    with pytest.raises(ValueError, match="parameter|type|no") as raised:
        parse_parameter(text)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("a:true:bool", "a", True),
        ("a:False:bool", "a", False),
        ("max_tokens:256:int", "max_tokens", 256),
        ("a:-5:int", "a", -5),
        ("a:5:uint", "a", 5),
        ("a:9223372036854775807:uint", "a", 2**63 - 1),
        ("a:-9223372036854775808:int", "a", -(2**63)),
        ("a:0.5:float", "a", 0.5),
        ("a:1e-3:double", "a", 0.001),
        ("a:5:double", "a", 5.0),
        ("a:text:string", "a", "text"),
        ("a::string", "a", ""),
        ("a:http://host:8000:string", "a", "http://host:8000"),
        ("a:5:string", "a", "5"),
    ],
)
def test_it_is_read_as_its_type(text: str, name: str, value: Parameter) -> None:
    read_name, read_value = parse_parameter(text)
    assert (read_name, read_value) == (name, value)
    assert type(read_value) is type(value)


@given(value=st.text())
def test_a_string_may_have_anything_in_it(value: str) -> None:
    assert parse_parameter(f"a:{value}:string") == ("a", value)


@pytest.mark.parametrize("text", ["", "a", "a:5", ":5:int", "::", "a=5"])
def test_another_form_is_refused(text: str) -> None:
    assert refusal(text) == f"{text!r} is not a parameter; write it as NAME:VALUE:TYPE, such as max_tokens:256:int"


def test_another_type_names_the_nearest() -> None:
    assert refusal("a:5:integer") == "'a:5:integer' has the unknown type 'integer'; did you mean 'int'?"
    assert refusal("a:5:") == "'a:5:' has the unknown type '' (available: bool, double, float, int, string, uint)"


@pytest.mark.parametrize(
    "text", ["a:yes:bool", "a:1:bool", "a:1.5:int", "a::int", "a:-1:uint", "a:x:float", "a:1,5:double"]
)
def test_a_value_that_is_not_of_its_type_is_refused(text: str) -> None:
    _, value, kind = text.split(":")
    assert refusal(text).startswith(f"{text!r}: {value!r} is not a value of type {kind}; write it as ")


@pytest.mark.parametrize(
    "text", ["a:9223372036854775808:int", "a:9223372036854775808:uint", "a:-9223372036854775809:int"]
)
def test_whole_numbers_have_64_bits(text: str) -> None:
    assert refusal(text).endswith("must fit into 64 bits with sign")


@pytest.mark.parametrize("text", ["a:nan:float", "a:-inf:double", "a:1e999:float"])
def test_numbers_are_finite(text: str) -> None:
    assert refusal(text).endswith("must be finite")


@pytest.mark.parametrize(("name", "option"), [("priority", "--priority"), ("timeout", "--queue-timeout")])
def test_what_has_an_option_of_its_own_is_no_parameter(name: str, option: str) -> None:
    assert refusal(f"{name}:5:int") == f"parameter {name!r} is reserved; use {option}"


@pytest.mark.parametrize(
    "name", ["sequence_id", "sequence_start", "sequence_end", "binary_data_output", "triton_final_response"]
)
def test_what_triton_keeps_for_itself_is_no_parameter(name: str) -> None:
    assert refusal(f"{name}:5:int") == f"parameter {name!r} is reserved; tritontune sets it"
