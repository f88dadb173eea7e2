"""Joins steps of single inferences to requests of a batch size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuner.config.interface import ModelInterface
from tuner.core.errors import InputError
from tuner.load.inputs.shapes import batch_dims
from tuner.load.inputs.tensors import InputTensor, RequestStep, Stream


@dataclass(frozen=True)
class PlacedStep:
    """A step of a file.

    Attributes:
        place: Its file and position in it.
        step: Its tensors, without a batch dimension.
    """

    place: str
    step: RequestStep


def join_batches(interface: ModelInterface, stream: Sequence[PlacedStep], batch_size: int) -> Stream:
    """Make a request from each `batch_size` consecutive steps; the last is filled up from the stream's beginning.

    Raises:
        InputError: the model does not take that batch size, or steps of one request differ in inputs or shapes.
    """
    if not batch_dims(interface, batch_size):
        return tuple(placed.step for placed in stream)
    return tuple(
        _join([stream[(start + number) % len(stream)] for number in range(batch_size)])
        for start in range(0, len(stream), batch_size)
    )


def _join(steps: Sequence[PlacedStep]) -> RequestStep:
    for other in steps[1:]:
        _check_alike(steps[0], other, len(steps))
    inputs = zip(*(placed.step.inputs for placed in steps), strict=True)
    expected = zip(*(placed.step.expected for placed in steps), strict=True)
    return RequestStep(tuple(map(_stack, inputs)), tuple(map(_stack, expected)))


def _check_alike(first: PlacedStep, other: PlacedStep, batch_size: int) -> None:
    for ours, theirs in ((first.step.inputs, other.step.inputs), (first.step.expected, other.step.expected)):
        here, there = ({tensor.name: tensor.shape for tensor in tensors} for tensors in (theirs, ours))
        for name in {**there, **here}:
            if here.get(name) != there.get(name):
                raise InputError(
                    f"{other.place}: {name} {_said(here.get(name))}, but {_said(there.get(name))} in {first.place}; "
                    f"steps of one request (batch size {batch_size}) must have the same inputs and shapes"
                )


def _said(shape: tuple[int, ...] | None) -> str:
    return "is missing" if shape is None else f"has shape {list(shape)}"


def _stack(tensors: Sequence[InputTensor]) -> InputTensor:
    return InputTensor(tensors[0].name, tensors[0].datatype, np.stack([tensor.values for tensor in tensors]))
