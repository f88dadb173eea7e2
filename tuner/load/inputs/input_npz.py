"""Reads inputs from NumPy's `.npz`: an array for each input, whose first axis is the step."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.format import MAGIC_PREFIX, read_array_header_1_0, read_array_header_2_0, read_magic

from tuner.config.interface import ModelInterface, Tensor
from tuner.core.errors import InputError, nearest
from tuner.load.inputs.batches import PlacedStep
from tuner.load.inputs.shapes import fits
from tuner.load.inputs.tensors import InputTensor, RequestStep
from tuner.load.inputs.values import from_array


def read_npz(
    path: Path, interface: ModelInterface, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[tuple[PlacedStep, ...], ...]:
    """Read the one stream of a file.

    Raises:
        InputError: the file is not a valid `.npz`, or does not fit the model.
        OSError: it cannot be read.
    """
    arrays = _arrays(path)
    inputs = {tensor.name: tensor for tensor in interface.inputs}
    for name in arrays:
        if name not in inputs:
            raise InputError(f"{path}: model {interface.name!r} has no input {name!r}{nearest(name, inputs)}")
    for tensor in interface.inputs:
        if tensor.name not in arrays and not tensor.optional:
            raise InputError(f"{path}: input {tensor.name!r} is missing")
    tensors = [
        (tensor, _values(f"{path}: {tensor.name}", arrays[tensor.name], tensor, shapes.get(tensor.name)))
        for tensor in interface.inputs
        if tensor.name in arrays
    ]
    counts = {tensor.name: len(values) for tensor, values in tensors}
    if len(set(counts.values())) > 1:
        steps = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise InputError(f"{path}: the first axis (steps) must have the same length for all inputs: {steps}")
    if not any(counts.values()):
        raise InputError(f"{path}: no steps")
    return (
        tuple(
            PlacedStep(
                f"{path}: [{number}]",
                RequestStep(
                    tuple(InputTensor(tensor.name, tensor.datatype, values[number]) for tensor, values in tensors)
                ),
            )
            for number in range(max(counts.values()))
        ),
    )


def check_npz(path: Path) -> None:
    """Check that a file is a valid `.npz`, before a model is known.

    Raises:
        InputError: the file is not a valid `.npz`.
        OSError: the file cannot be read.
    """
    # Checked here, since NumPy's message for a file in another format is about pickles.
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise InputError(f"{path}: not an .npz file (numpy.savez writes them)")


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    check_npz(path)
    with path.open("rb") as file:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with np.load(file, allow_pickle=False) as archive:
                    has_objects = any(_has_objects(archive.zip, member) for member in archive.zip.namelist())
                    # Members that are not arrays are read as bytes.
                    arrays = {} if has_objects else {name: np.asarray(archive[name]) for name in archive.files}
        except Exception as error:  # noqa: BLE001 (numpy and zipfile raise many kinds of errors for damaged files)
            raise InputError(f"{path}: is damaged: {' '.join(str(error).split())}") from None
    if has_objects:
        raise InputError(f"{path}: holds Python objects; store texts as arrays of bytes or str")
    return arrays


def _has_objects(archive: zipfile.ZipFile, member: str) -> bool:
    """Whether a member is an array of Python objects, by its header."""
    with archive.open(member) as file:
        if file.read(len(MAGIC_PREFIX)) != MAGIC_PREFIX:
            return False
        file.seek(0)
        # numpy's stubs lack types for these.
        header = read_array_header_1_0 if read_magic(file) == (1, 0) else read_array_header_2_0  # type: ignore[no-untyped-call]
        _, _, dtype = header(file)  # type: ignore[no-untyped-call]
        return bool(dtype.hasobject)


def _values(where: str, array: npt.NDArray[Any], tensor: Tensor, asked: tuple[int, ...] | None) -> npt.NDArray[Any]:
    shape = tensor.shape if asked is None else asked
    if array.ndim == 0 or not fits(shape, array.shape[1:]):
        wanted = ", ".join(["STEPS", *map(str, shape)])
        raise InputError(f"{where}: shape must be [{wanted}], got {list(array.shape)}")
    try:
        return from_array(array, tensor.datatype)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
