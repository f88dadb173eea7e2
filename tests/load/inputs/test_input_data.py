from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tuner.config.interface import ModelInterface, Tensor
from tuner.core.errors import InputError
from tuner.load.inputs.input_data import read_input_data
from tuner.load.inputs.tensors import Stream


def interface(max_batch_size: int = 8, shape: tuple[int, ...] = (2,)) -> ModelInterface:
    return ModelInterface("m", max_batch_size, (Tensor("X", "INT32", shape),), (Tensor("Y", "INT32", (1,)),))


@pytest.fixture
def streams(tmp_path: Path) -> Path:
    path = tmp_path / "streams.json"
    data = [[{"X": [1, 2]}, {"X": [3, 4]}, {"X": [5, 6]}], [{"X": [7, 8]}]]
    path.write_text(json.dumps({"data": data}), encoding="utf-8")
    return path


def values(stream: Stream) -> list[Any]:
    return [step.inputs[0].values.tolist() for step in stream]


def refusal(path: Path, model: ModelInterface, *, batch_size: int = 1, **shapes: tuple[int, ...]) -> str:
    with pytest.raises(InputError) as raised:
        read_input_data(path, model, shapes=shapes, batch_size=batch_size)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_json_is_read_with_the_batch_dimension_in_front(streams: Path) -> None:
    first, second = read_input_data(streams, interface(), shapes={})
    assert values(first) == [[[1, 2]], [[3, 4]], [[5, 6]]]
    assert values(second) == [[[7, 8]]]


def test_without_batches_there_is_no_batch_dimension(streams: Path) -> None:
    first, _ = read_input_data(streams, interface(0), shapes={})
    assert values(first) == [[1, 2], [3, 4], [5, 6]]


def test_batches_are_made_within_each_stream(streams: Path) -> None:
    first, second = read_input_data(streams, interface(), shapes={}, batch_size=2)
    assert values(first) == [[[1, 2], [3, 4]], [[5, 6], [1, 2]]]
    assert values(second) == [[[7, 8], [7, 8]]]


def test_answers_are_joined_with_their_steps(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    content = {"data": [{"X": [1, 2]}, {"X": [3, 4]}], "validation_data": [{"Y": [3]}, {"Y": [7]}]}
    path.write_text(json.dumps(content), encoding="utf-8")
    ((step,),) = read_input_data(path, interface(), shapes={}, batch_size=2)
    assert [(t.name, t.values.tolist()) for t in step.expected] == [("Y", [[3], [7]])]


def test_npz_is_read_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, X=np.arange(6, dtype=np.int32).reshape(3, 2))
    (stream,) = read_input_data(path, interface(), shapes={}, batch_size=2)
    assert values(stream) == [[[0, 1], [2, 3]], [[4, 5], [0, 1]]]


def test_shapes_are_for_tensors_that_do_not_say_their_own(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    steps = [{"X": [1, 2, 3, 4]}, {"X": {"content": [1, 2, 3, 4], "shape": [4, 1]}}]
    path.write_text(json.dumps({"data": steps}), encoding="utf-8")
    model = interface(shape=(-1, -1))
    (stream,) = read_input_data(path, model, shapes={"X": (2, 2)})
    assert [step.inputs[0].shape for step in stream] == [(1, 2, 2), (1, 4, 1)]
    assert refusal(path, model, batch_size=2, X=(2, 2)) == (
        f"{path}: data[1]: X has shape [4, 1], but has shape [2, 2] in {path}: data[0]; "
        "steps of one request (batch size 2) must have the same inputs and shapes"
    )


def test_what_is_wrong_with_the_options_is_said_before_the_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "missing.json"
    assert "<= 8 (max_batch_size of model 'm')" in refusal(path, interface(), batch_size=9)
    assert "--shape X:3: input" in refusal(path, interface(), X=(3,))
    assert "no input 'Z'" in refusal(path, interface(), Z=(3,))


def test_a_datatype_without_values_is_refused(streams: Path) -> None:
    model = ModelInterface("m", 8, (), (Tensor("Y", "FP8", (1,)),))
    assert refusal(streams, model).startswith("output 'Y' of model 'm' has unsupported datatype FP8 (supported: ")


@pytest.mark.parametrize("name", ["missing.json", "missing.npz"])
def test_a_file_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert refusal(path, interface()) == f"{path}: cannot be read: No such file or directory"


@pytest.mark.parametrize("name", ["folder", "folder.npz"])
def test_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.mkdir()
    assert refusal(path, interface()) == f"{path}: cannot be read: Is a directory"
