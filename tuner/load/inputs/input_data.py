"""Reads the inputs of `--input-data`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tuner.config.interface import ModelInterface
from tuner.core.errors import InputError
from tuner.load.inputs.batches import join_batches
from tuner.load.inputs.input_json import load_json, read_json
from tuner.load.inputs.input_npz import check_npz, read_npz
from tuner.load.inputs.shapes import batch_dims, check_shapes
from tuner.load.inputs.tensors import Stream, dtype_of


def check_input_data(path: Path) -> None:
    """Check that a file is JSON or `.npz`, before a model is known.

    Raises:
        InputError: the file is wrong; the message is one line with the place.
    """
    check = check_npz if path.suffix == ".npz" else load_json
    with _readable(path):
        check(path)


def read_input_data(
    path: Path, interface: ModelInterface, *, shapes: Mapping[str, tuple[int, ...]], batch_size: int = 1
) -> tuple[Stream, ...]:
    """Read requests from a file: JSON in the format of perf_analyzer, or numpy's `.npz`.

    A request of batch size b has b consecutive steps. The last request is filled up from the beginning of the stream.

    Args:
        path: The file. An `.npz` has an array for each input, whose first axis is the step.
        interface: The model's inputs and outputs.
        shapes: Shapes by input, without the batch dimension, for tensors without a shape in the file.
        batch_size: Inferences in each request.

    Returns:
        The streams of the file. The steps of a stream form a sequence.

    Raises:
        InputError: the file is wrong; the message is one line with the place.
    """
    batch_dims(interface, batch_size)
    check_shapes(interface, shapes)
    for kind, tensors in (("input", interface.inputs), ("output", interface.outputs)):
        for tensor in tensors:
            dtype_of(f"{kind} {tensor.name!r} of model {interface.name!r}", tensor.datatype)
    read = read_npz if path.suffix == ".npz" else read_json
    with _readable(path):
        streams = read(path, interface, shapes)
    return tuple(join_batches(interface, stream, batch_size) for stream in streams)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
