"""Golden outputs on disk: an `.npz` with an array for each request and output, and JSON that describes the arrays."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.core.atomic_file import write_atomically
from tuner.load.inputs.tensors import DTYPES, InputTensor
from tuner.load.outputs import tensor_of
from tuner.load.workload import Request
from tuner.outputs.golden import GoldenAnswer, GoldenOutputs, Unsteady

_CONTENTS = "contents"

_Arrays = dict[str, npt.NDArray[Any]]


class GoldenFileError(Exception):
    """The file does not have the golden outputs of this study; the text says why."""


def write_golden(path: Path, golden: GoldenOutputs, study: str) -> None:
    """Write golden outputs atomically.

    Args:
        path: The file.
        golden: The golden outputs.
        study: The identity of the study.
    """
    arrays: _Arrays = {}
    contents = {
        "study": study,
        "unsteady": [[entry.output, entry.words, entry.outline_varies] for entry in golden.unsteady],
        "refused": golden.refused,
        "answer_s": golden.answer_s,
        "lines": [[_told(answer, arrays) for answer in line] for line in golden.lines],
    }
    arrays[_CONTENTS] = np.frombuffer(json.dumps(contents).encode(), np.uint8)
    whole = io.BytesIO()
    np.savez(whole, **arrays)
    write_atomically(path, whole.getvalue())


def read_golden(path: Path, study: str) -> GoldenOutputs:
    """Read golden outputs.

    Raises:
        GoldenFileError: the file is missing, cannot be read, or belongs to another study.
    """
    try:
        # numpy would not close a file that it fails to read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            contents: Mapping[str, Any] = json.loads(arrays[_CONTENTS].tobytes())
            if contents["study"] != study:
                raise GoldenFileError("belongs to another study")
            return GoldenOutputs(
                tuple(tuple(_answer(answer, arrays) for answer in line) for line in contents["lines"]),
                tuple(Unsteady(*entry) for entry in contents["unsteady"]),
                tuple(contents["refused"]),
                contents["answer_s"],
            )
    except FileNotFoundError:
        raise GoldenFileError("is missing") from None
    except OSError as error:
        raise GoldenFileError(f"cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile):
        raise GoldenFileError("is damaged") from None


def _told(answer: GoldenAnswer, arrays: _Arrays) -> dict[str, Any]:
    """An answer as JSON; its arrays are added to `arrays`."""

    def put(array: npt.NDArray[Any]) -> str:
        name = f"array_{len(arrays)}"
        arrays[name] = array
        return name

    def entry(tensor: InputTensor) -> dict[str, Any]:
        # Stored as bytes, since numpy would pickle an object array.
        array = np.frombuffer(tensor.raw(), np.uint8) if tensor.datatype == "BYTES" else tensor.values
        return {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape, "array": put(array)}

    return {
        "request": put(np.frombuffer(answer.request.body, np.uint8)),
        "json_length": answer.request.json_length,
        "responses": [[entry(tensor) for tensor in response] for response in answer.responses],
    }


def _answer(answer: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> GoldenAnswer:
    return GoldenAnswer(
        Request(arrays[answer["request"]].tobytes(), answer["json_length"]),
        tuple(tuple(_tensor(output, arrays) for output in response) for response in answer["responses"]),
    )


def _tensor(output: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> InputTensor:
    datatype, array = output["datatype"], arrays[output["array"]]
    if datatype == "BYTES":
        return tensor_of(output["name"], datatype, tuple(output["shape"]), array.tobytes())
    if array.dtype != DTYPES[datatype] or array.shape != tuple(output["shape"]):
        raise ValueError("an array does not match its declared datatype or shape")
    return InputTensor(output["name"], datatype, array)
