from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tuner.config.interface import ModelInterface, Tensor
from tuner.core.errors import InputError
from tuner.load.inputs.batches import PlacedStep
from tuner.load.inputs.input_npz import read_npz

MODEL = ModelInterface(
    "m",
    8,
    (Tensor("X", "INT32", (2, -1)), Tensor("TEXT", "BYTES", (1,)), Tensor("MASK", "BOOL", (2,), optional=True)),
    (Tensor("Y", "INT32", (2,)),),
)
X = np.arange(18, dtype=np.int32).reshape(3, 2, 3)
TEXT = np.array([["a"], [""], ["é"]])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data.npz"


def read(file: Path, arrays: dict[str, Any], **shapes: tuple[int, ...]) -> tuple[PlacedStep, ...]:
    np.savez(file, **arrays)
    (stream,) = read_npz(file, MODEL, shapes)
    return stream


def refusal(file: Path, arrays: dict[str, Any], **shapes: tuple[int, ...]) -> str:
    """What is said after the file's name."""
    with pytest.raises(InputError) as raised:
        read(file, arrays, **shapes)
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith(f"{file}: ")
    return message.removeprefix(f"{file}: ")


def test_each_row_is_a_step(file: Path) -> None:
    stream = read(file, {"TEXT": TEXT, "X": X})
    assert [placed.place for placed in stream] == [f"{file}: [{number}]" for number in range(3)]
    for number, placed in enumerate(stream):
        x, text = placed.step.inputs
        assert (x.name, x.datatype, x.values.tolist()) == ("X", "INT32", X[number].tolist())
        assert (text.name, text.datatype, text.values.tolist()) == ("TEXT", "BYTES", [TEXT[number, 0].encode()])
        assert placed.step.expected == ()


def test_it_may_be_compressed(file: Path) -> None:
    np.savez_compressed(file, X=X, TEXT=TEXT)
    assert len(read_npz(file, MODEL, {})[0]) == 3


def test_optional_inputs_may_be_there(file: Path) -> None:
    stream = read(file, {"X": X, "TEXT": TEXT, "MASK": np.ones((3, 2), np.bool_)})
    assert stream[2].step.inputs[2].values.tolist() == [True, True]


def test_numbers_of_another_type_are_kept(file: Path) -> None:
    stream = read(file, {"X": X.astype(np.uint64), "TEXT": TEXT})
    assert stream[0].step.inputs[0].raw() == X[0].tobytes()


def test_bf16_as_ml_dtypes_saves_it(file: Path) -> None:
    values = np.array([[1.5, -2]], ml_dtypes.bfloat16)
    np.savez(file, W=values)
    model = ModelInterface("m", 8, (Tensor("W", "BF16", (2,)),), ())
    (stream,) = read_npz(file, model, {})
    assert stream[0].step.inputs[0].raw() == values.tobytes()


def test_the_shape_of_the_option_must_be_kept(file: Path) -> None:
    assert len(read(file, {"X": X, "TEXT": TEXT}, X=(2, 3))) == 3
    assert refusal(file, {"X": X, "TEXT": TEXT}, X=(2, 4)) == ("X: shape must be [STEPS, 2, 4], got [3, 2, 3]")


@pytest.mark.parametrize("shape", [(), (3,), (3, 2), (3, 3, 3), (1, 3, 2, 3)])
def test_a_shape_that_the_model_does_not_take_is_refused(file: Path, shape: tuple[int, ...]) -> None:
    message = f"X: shape must be [STEPS, 2, -1], got {list(shape)}"
    assert refusal(file, {"X": np.zeros(shape, np.int32), "TEXT": TEXT}) == message


def test_a_name_that_is_not_known_names_the_nearest(file: Path) -> None:
    assert refusal(file, {"X": X, "TEXTS": TEXT}) == "model 'm' has no input 'TEXTS'; did you mean 'TEXT'?"


def test_an_input_that_is_missing_is_named(file: Path) -> None:
    assert refusal(file, {"TEXT": TEXT}) == "input 'X' is missing"


def test_there_are_as_many_steps_of_each(file: Path) -> None:
    assert refusal(file, {"X": X, "TEXT": TEXT[:2]}) == (
        "the first axis (steps) must have the same length for all inputs: X 3, TEXT 2"
    )


def test_there_is_a_step(file: Path) -> None:
    assert refusal(file, {"X": X[:0], "TEXT": TEXT[:0]}) == "no steps"


def test_values_of_another_kind_are_refused(file: Path) -> None:
    assert refusal(file, {"X": X.astype(np.float64), "TEXT": TEXT}) == (
        "X: an array of float64 cannot be converted to INT32"
    )
    assert refusal(file, {"X": X.astype(np.int64) + 2**31, "TEXT": TEXT}).startswith(
        "X: 2147483648 is out of the range of INT32, "
    )


def test_python_objects_are_refused(file: Path) -> None:
    assert refusal(file, {"X": X, "TEXT": TEXT.astype(object)}) == (
        "holds Python objects; store texts as arrays of bytes or str"
    )


@pytest.mark.parametrize("content", [b"", b"PK", b"text", b"\x93NUMPY\x01\x00v\x00{}"])
def test_other_files_are_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"data\.npz: not an \.npz file \(numpy\.savez writes them\)$"):
        read_npz(file, MODEL, {})


def test_a_file_of_other_things_is_refused(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("X", "text")
        archive.writestr("TEXT", "text")
    with pytest.raises(InputError, match=r"X: shape must be \[STEPS, 2, -1\], got \[\]$"):
        read_npz(file, MODEL, {})


def test_a_damaged_file_is_refused(file: Path) -> None:
    np.savez(file, X=X, TEXT=TEXT)
    whole = file.read_bytes()
    for place in range(30, len(whole), 7):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            read_npz(file, MODEL, {})
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017 (some bytes do not matter)
