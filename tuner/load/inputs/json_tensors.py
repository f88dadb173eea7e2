"""Reads the tensors of a step in the JSON format of perf_analyzer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tuner.config.interface import Tensor
from tuner.core.errors import InputError, nearest
from tuner.load.inputs.shapes import asked, fits
from tuner.load.inputs.tensors import InputTensor
from tuner.load.inputs.values import ElementError, flatten, from_base64, from_list

_KEYS = ("content", "shape", "b64")
_FORMS = '[...], {"content": [...], "shape": [...]} or {"b64": "...", "shape": [...]}'


@dataclass(frozen=True)
class JsonStep:
    """A step in the file, not parsed yet.

    Attributes:
        place: Its file and position in it.
        tensors: Its tensors by name, as JSON values.
    """

    place: str
    tensors: Mapping[str, Any]


@dataclass(frozen=True)
class Side:
    """The inputs of a model, which are required unless optional, or its outputs, which are never required.

    Attributes:
        kind: `input` or `output`.
        model: The name of the model.
        tensors: The tensors by the config.
        shapes: Their shapes by `--shape`.
    """

    kind: str
    model: str
    tensors: tuple[Tensor, ...]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def read(self, entry: JsonStep) -> tuple[InputTensor, ...]:
        """The tensors of a step, in the order of the config.

        Raises:
            InputError: the step is wrong; the message is one line with the place.
        """
        tensors = {tensor.name: tensor for tensor in self.tensors}
        for name in entry.tensors:
            if name not in tensors:
                raise InputError(
                    f"{entry.place}: model {self.model!r} has no {self.kind} {name!r}{nearest(name, tensors)}"
                )
        for tensor in self.tensors:
            if tensor.name not in entry.tensors and self.kind == "input" and not tensor.optional:
                raise InputError(f"{entry.place}: input {tensor.name!r} is missing")
        return tuple(
            self._read(f"{entry.place}.{tensor.name}", entry.tensors[tensor.name], tensor)
            for tensor in self.tensors
            if tensor.name in entry.tensors
        )

    def _read(self, where: str, value: Any, tensor: Tensor) -> InputTensor:
        content, said = _parts(where, value)
        nesting: tuple[int, ...] = ()
        try:
            if isinstance(content, list):
                flat, nesting = flatten(content)
                values = from_list(flat, tensor.datatype)
            else:
                values = from_base64(content["b64"], tensor.datatype)
                nesting = values.shape
        except ElementError as error:
            place = "".join(f"[{index}]" for index in np.unravel_index(error.index, nesting))
            raise InputError(f"{where}{place}: {error}") from None
        except ValueError as error:
            raise InputError(f"{where}: {error}") from None
        shape = self._shape(where, tensor, said, nesting)
        if values.size != math.prod(shape):
            raise InputError(f"{where}: shape {list(shape)} needs {math.prod(shape)} values, got {values.size}")
        return InputTensor(tensor.name, tensor.datatype, values.reshape(shape))

    def _shape(
        self, where: str, tensor: Tensor, said: tuple[int, ...] | None, nesting: tuple[int, ...]
    ) -> tuple[int, ...]:
        """The shape of a tensor: its own, else by its nested lists, else by `--shape` or the config."""
        nested = nesting if len(nesting) > 1 else None
        if said is not None and nested is not None and said != nested:
            raise InputError(f'{where}: lists have shape {list(nested)}, but "shape" is {list(said)}')
        usual = self.shapes.get(tensor.name, tensor.shape)
        if -1 in usual and len(nesting) == len(usual) == 1:
            usual = nesting
        shape = next(shape for shape in (said, nested, usual) if shape is not None)
        if -1 in shape:
            option = f" or {asked(tensor)}" if self.kind == "input" else ""
            raise InputError(f'{where}: shape unknown, because the model has {list(shape)}; add "shape"{option}')
        if not fits(tensor.shape, shape):
            hint = " (without the batch dimension)" if len(shape) > len(tensor.shape) else ""
            raise InputError(f"{where}: shape must be {list(tensor.shape)}{hint}, got {list(shape)}")
        return shape


def _parts(where: str, value: Any) -> tuple[list[Any] | dict[str, Any], tuple[int, ...] | None]:
    """The content of a tensor (a list or base64), and its shape, if given."""
    if isinstance(value, list):
        return value, None
    if not isinstance(value, dict):
        raise InputError(f"{where}: a tensor must be {_FORMS}")
    for key in value:
        if key not in _KEYS:
            raise InputError(f"{where}: unknown key {key!r}{nearest(key, _KEYS)}")
    if ("content" in value) == ("b64" in value):
        raise InputError(f'{where}: needs either "content" or "b64"')
    content = value.get("content", {"b64": value.get("b64")})
    if not isinstance(content, list) and not (isinstance(content, dict) and content.keys() == {"b64"}):
        raise InputError(f'{where}.content: must be a list, or {{"b64": "..."}}')
    return content, _said_shape(where, value["shape"]) if "shape" in value else None


def _said_shape(where: str, shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, list) or not all(type(dim) is int and dim >= 0 for dim in shape):
        raise InputError(f"{where}.shape: must be a list of integers >= 0")
    return tuple(shape)
