from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tuner.load.inputs.tensors import DTYPES, InputTensor, text_array
from tuner.load.workload import Request
from tuner.outputs.golden import GoldenAnswer, GoldenOutputs, Unsteady
from tuner.outputs.golden_file import GoldenFileError, read_golden, write_golden


def tensor(datatype: str) -> InputTensor:
    values: Any = np.arange(6).astype(DTYPES[datatype]).reshape(2, 3)
    if datatype == "BYTES":
        values = text_array([b"a", b"", b"\x00\xff", b"dddd", b"e", b"f"], (2, 3))
    return InputTensor(f"models/{datatype}:0", datatype, values)


GOLDEN = GoldenOutputs(
    lines=(
        (GoldenAnswer(Request(b"one", 2), (tuple(map(tensor, DTYPES)),)),),
        (
            GoldenAnswer(Request(b"two"), ((tensor("FP32"),), (tensor("INT8"),))),
            GoldenAnswer(Request(b"three"), ()),
        ),
    ),
    unsteady=(
        Unsteady("COUNT", "1 for request 1 alone, 2 together with others"),
        Unsteady(None, "x", outline_varies=True),
    ),
    refused=("INTERNAL: not this one",),
    answer_s=0.25,
)


def told(golden: GoldenOutputs) -> Any:
    """All of it in what can be compared."""
    return (
        golden.unsteady,
        golden.refused,
        golden.answer_s,
        [
            [
                (answer.request, [[(o.name, o.datatype, o.shape, o.raw()) for o in each] for each in answer.responses])
                for answer in line
            ]
            for line in golden.lines
        ],
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mlp" / "golden_outputs.npz"
    write_golden(path, GOLDEN, "a study")
    return path


@pytest.mark.parametrize("golden", [GOLDEN, GoldenOutputs(())])
def test_what_is_written_comes_back(file: Path, golden: GoldenOutputs) -> None:
    write_golden(file, golden, "a study")
    assert told(read_golden(file, "a study")) == told(golden)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_numpy_reads_it_without_pickles(file: Path) -> None:
    with np.load(file, allow_pickle=False) as arrays:
        contents = json.loads(arrays["contents"].tobytes())
        output = contents["lines"][1][0]["responses"][0][0]
        assert output["name"] == "models/FP32:0"
        assert arrays[output["array"]].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_what_is_not_there_or_anothers_is_said(file: Path) -> None:
    with pytest.raises(GoldenFileError, match="^belongs to another study$"):
        read_golden(file, "another study")
    file.unlink()
    with pytest.raises(GoldenFileError, match="^is missing$"):
        read_golden(file, "a study")
    file.mkdir()
    with pytest.raises(GoldenFileError, match="^cannot be read: Is a directory$"):
        read_golden(file, "a study")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_half_a_file_is_damaged(file: Path, share: float) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(GoldenFileError, match="^is damaged$"):
        read_golden(file, "a study")


def test_a_byte_that_is_another_is_found(file: Path) -> None:
    whole = bytearray(file.read_bytes())
    whole[whole.index(b"three")] ^= 1
    file.write_bytes(whole)
    with pytest.raises(GoldenFileError, match="^is damaged$"):
        read_golden(file, "a study")


@pytest.mark.parametrize("contents", [b"[]", b"{", b"{}", b'{"study": "a study", "lines": [[{}]]}'])
def test_other_contents_are_damage(file: Path, contents: bytes) -> None:
    np.savez(file, contents=np.frombuffer(contents, np.uint8))
    with pytest.raises(GoldenFileError, match="^is damaged$"):
        read_golden(file, "a study")
