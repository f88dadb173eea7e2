"""The inputs that a user brings with `--input-data`."""

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
    """See that a file is JSON or `.npz` at all, while no model is there yet that it should fit.

    Raises:
        InputError: one line that says what is wrong, and where in the file.
    """
    check = check_npz if path.suffix == ".npz" else load_json
    with _readable(path):
        check(path)


def read_input_data(
    path: Path, interface: ModelInterface, *, shapes: Mapping[str, tuple[int, ...]], batch_size: int = 1
) -> tuple[Stream, ...]:
    """Read requests from a file: JSON in the format of perf_analyzer, or numpy's `.npz`.

    A request of batch size b is made of b steps that follow each other, and the last of a stream is filled up from
    its beginning, so that every step is sent.

    Args:
        path: The file. In `.npz` there is an array for each input, and the first axis of all counts the steps.
        interface: What the model takes and gives.
        shapes: Dimensions by input, without the batch dimension, for tensors of the file that do not say their own.
        batch_size: Inferences in each request.

    Returns:
        The streams of the file, one unless it says otherwise. A stream's steps belong together in a sequence.

    Raises:
        InputError: one line that says what is wrong, and where in the file.
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
