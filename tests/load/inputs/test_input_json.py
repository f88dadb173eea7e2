from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuner.config.interface import ModelInterface, Tensor
from tuner.core.errors import InputError
from tuner.load.inputs.batches import PlacedStep
from tuner.load.inputs.input_json import read_json

MODEL = ModelInterface("m", 8, (Tensor("X", "INT32", (2,)),), (Tensor("Y", "INT32", (2,)), Tensor("Z", "FP32", (1,))))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data.json"


def read(file: Path, content: object) -> tuple[tuple[PlacedStep, ...], ...]:
    file.write_text(json.dumps(content), encoding="utf-8")
    return read_json(file, MODEL, {})


def refusal(file: Path, content: object) -> str:
    """What is said after the file's name."""
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError) as raised:
        read_json(file, MODEL, {})
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith(f"{file}:")
    return message.removeprefix(f"{file}:").lstrip()


def inputs(stream: Sequence[PlacedStep]) -> list[Any]:
    return [placed.step.inputs[0].values.tolist() for placed in stream]


def test_steps_make_one_stream(file: Path) -> None:
    (stream,) = read(file, {"data": [{"X": [1, 2]}, {"X": [3, 4]}]})
    assert inputs(stream) == [[1, 2], [3, 4]]
    assert [placed.place for placed in stream] == [f"{file}: data[0]", f"{file}: data[1]"]
    assert [placed.step.expected for placed in stream] == [(), ()]


def test_lists_of_steps_make_several(file: Path) -> None:
    first, second = read(file, {"data": [[{"X": [1, 2]}, {"X": [3, 4]}], [{"X": [5, 6]}]]})
    assert inputs(first) == [[1, 2], [3, 4]]
    assert inputs(second) == [[5, 6]]
    assert second[0].place == f"{file}: data[1][0]"


def test_answers_stand_beside_the_steps(file: Path) -> None:
    content = {"data": [{"X": [1, 2]}, {"X": [3, 4]}], "validation_data": [{"Y": [5, 6], "Z": [0.5]}, {"Y": [7, 8]}]}
    (stream,) = read(file, content)
    expected = [{t.name: (t.datatype, t.values.tolist()) for t in placed.step.expected} for placed in stream]
    assert expected == [{"Y": ("INT32", [5, 6]), "Z": ("FP32", [0.5])}, {"Y": ("INT32", [7, 8])}]


def test_answers_of_several_streams(file: Path) -> None:
    content = {"data": [[{"X": [1, 2]}], [{"X": [3, 4]}]], "validation_data": [[{"Y": [5, 6]}], [{}]]}
    first, second = read(file, content)
    assert first[0].step.expected[0].values.tolist() == [5, 6]
    assert second[0].step.expected == ()


def test_a_byte_order_mark_is_no_fault(file: Path) -> None:
    file.write_bytes(b'\xef\xbb\xbf{"data": [{"X": [1, 2]}]}')
    assert inputs(read_json(file, MODEL, {})[0]) == [[1, 2]]


def test_a_fault_is_named_by_its_place(file: Path) -> None:
    good, bad = {"X": [1, 2]}, {"X": [1]}
    assert refusal(file, {"data": [good, bad]}) == "data[1].X: shape [2] needs 2 values, got 1"
    assert refusal(file, {"data": [[good], [good, bad]]}) == "data[1][1].X: shape [2] needs 2 values, got 1"
    assert refusal(file, {"data": [good], "validation_data": [{"Z": ["x"]}]}) == (
        'validation_data[0].Z[0]: "x" is not a number'
    )


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b'{"data": [1, 2,, 3]}', "1:16: invalid JSON: "),
        (b'{"data":\n  [{"X": [1 2]}]}', "2:13: invalid JSON: "),
        (b"", "1:1: invalid JSON: "),
        (b"INPUT0: [1, 2]", "1:1: invalid JSON: "),
    ],
)
def test_what_is_not_json_is_named_by_line_and_column(file: Path, content: bytes, place: str) -> None:
    assert refusal(file, content).startswith(place)


def test_other_files_are_refused(file: Path) -> None:
    assert refusal(file, b"\x93NUMPY\x01\x00") == "not JSON in UTF-8 (a NumPy archive must be named .npz)"
    assert refusal(file, b"[" * 100_000) == "lists are nested too deeply"
    assert refusal(file, b'{"data": [{"X": [' + b"1" * 5_000 + b", 2]}]}").startswith("Exceeds the limit")


def test_a_key_that_stands_twice_is_refused(file: Path) -> None:
    content = b'{"data": [{"X": [1, 2], "X": [3, 4]}]}'
    assert refusal(file, content) == "duplicate key 'X' in an object"


@pytest.mark.parametrize("content", [[], [{"X": [1, 2]}], "data", 5, None, {}, {"validation_data": []}])
def test_a_file_without_data_is_refused(file: Path, content: object) -> None:
    assert refusal(file, content) == 'must be an object with a list "data" of steps'


def test_a_key_that_is_not_known_names_the_nearest(file: Path) -> None:
    content = {"data": [{"X": [1, 2]}], "validation": []}
    assert refusal(file, content) == "unknown key 'validation'; did you mean 'validation_data'?"


@pytest.mark.parametrize("data", [[], {}, {"X": [1, 2]}, None, 5, "X"])
def test_data_is_a_list_that_is_not_empty(file: Path, data: object) -> None:
    message = "must be a non-empty list of steps, or of lists of steps"
    assert refusal(file, {"data": data}) == f"data: {message}"
    assert refusal(file, {"data": [{"X": [1, 2]}], "validation_data": data}) == f"validation_data: {message}"


def test_a_stream_is_not_empty(file: Path) -> None:
    assert refusal(file, {"data": [[{"X": [1, 2]}], []]}) == "data[1]: no steps"


def test_steps_and_streams_do_not_stand_side_by_side(file: Path) -> None:
    message = "data: mixes steps and lists of steps; use only one of them"
    assert refusal(file, {"data": [{"X": [1, 2]}, [{"X": [1, 2]}]]}) == message


@pytest.mark.parametrize("step", [5, "X", None, True])
def test_a_step_is_an_object(file: Path, step: object) -> None:
    message = "a step must be an object of tensors by name"
    assert refusal(file, {"data": [{"X": [1, 2]}, step]}) == f"data[1]: {message}"
    assert refusal(file, {"data": [[step]]}) == f"data[0][0]: {message}"


def test_every_step_has_its_answer(file: Path) -> None:
    step, answer = {"X": [1, 2]}, {"Y": [1, 2]}
    assert refusal(file, {"data": [step, step], "validation_data": [answer]}) == (
        "data has 2 steps, but validation_data has 1"
    )
    assert refusal(file, {"data": [[step], [step]], "validation_data": [answer, answer]}) == (
        "data has 2 streams, but validation_data has 1"
    )
    assert refusal(file, {"data": [[step], [step]], "validation_data": [[answer], [answer, answer]]}) == (
        "stream 1 of data has 1 steps, but stream 1 of validation_data has 2"
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-300, 300) | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "validation_data", "X", "Y", "Z", "content", "b64", "shape"]), inner, max_size=3
        )
    ),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=JSON, answers=JSON)
def test_whatever_it_says_is_read_or_refused_in_one_line(file: Path, data: Any, answers: Any) -> None:
    for content in ({"data": data}, {"data": [{"X": data}]}, {"data": [{"X": [1, 2]}], "validation_data": answers}):
        file.write_text(json.dumps(content), encoding="utf-8")
        try:
            streams = read_json(file, MODEL, {})
        except InputError as error:
            (line,) = str(error).splitlines()
            assert line.startswith(f"{file}:")
        else:
            assert all(placed.step.inputs[0].shape == (2,) for stream in streams for placed in stream)
