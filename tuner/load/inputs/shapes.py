"""Shapes and batch sizes that a model takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tuner.config.interface import ModelInterface, Tensor
from tuner.core.errors import InputError, JobError, nearest


def batch_dims(interface: ModelInterface, batch_size: int) -> tuple[int, ...]:
    """The dimensions before the shape of each tensor: the batch dimension, or none for a model without batching.

    Raises:
        InputError: the model does not take this batch size.
    """
    if batch_size < 1:
        raise InputError(f"batch size must be >= 1, got {batch_size}")
    if batch_size > max(1, interface.max_batch_size):
        limit = f"<= {interface.max_batch_size} (max_batch_size of model {interface.name!r})"
        if not interface.batched:
            limit = f"1 (model {interface.name!r} has no batch dimension)"
        raise InputError(f"batch size must be {limit}, got {batch_size}")
    return (batch_size,) if interface.batched else ()


def fits(shape: tuple[int, ...], given: tuple[int, ...]) -> bool:
    """Whether a shape matches a config's shape, in which -1 is variable."""
    return len(shape) == len(given) and all(
        dim in (-1, asked) and asked >= 0 for dim, asked in zip(shape, given, strict=True)
    )


Shapes = Mapping[str, tuple[int, ...]]
"""Shapes by input, without the batch dimension."""


def own_shapes(interface: ModelInterface, asked_for: Shapes, *, elsewhere: bool = False) -> Shapes:
    """The requested shapes for a model's inputs; `MODEL/INPUT` takes precedence over `INPUT`.

    Args:
        interface: The model's inputs.
        asked_for: Shapes by `INPUT`, for every model that has it, or `MODEL/INPUT`, for that model.
        elsewhere: Whether other shapes may be for other models.

    Raises:
        InputError: a shape is for an unknown input of this model.
    """
    own: dict[str, tuple[int, ...]] = {}
    tensors, prefix = {tensor.name for tensor in interface.inputs}, f"{interface.name}/"
    for name, shape in asked_for.items():
        if name in tensors:
            own.setdefault(name, shape)
        elif name.startswith(prefix) and name.removeprefix(prefix) in tensors:
            own[name.removeprefix(prefix)] = shape
        elif name.startswith(prefix) or not elsewhere:
            plain = name.removeprefix(prefix)
            raise InputError(f"model {interface.name!r} has no input {plain!r}{nearest(plain, tensors)}")
    return own


def shapes_for(model: str, inputs: Collection[str] | None, asked_for: Shapes) -> Shapes:
    """The shapes that apply to one of several models, by its files.

    Args:
        model: The name of the model.
        inputs: The names of its inputs; None: unknown.
        asked_for: See `own_shapes`.
    """
    if inputs is None:
        return asked_for
    return {name: shape for name, shape in asked_for.items() if name in inputs or name.startswith(f"{model}/")}


def check_somewhere(inputs: Mapping[str, Collection[str] | None], asked_for: Shapes) -> None:
    """Check that each shape is for an input of at least one of several models.

    Args:
        inputs: The input names of each model; None: unknown.
        asked_for: See `own_shapes`.

    Raises:
        JobError: a shape is for no input.
    """
    for name in asked_for:
        listings = [names for names in inputs.values() if names is not None]
        if any(name in names for names in listings):
            continue
        model = next((model for model in inputs if name.startswith(f"{model}/")), None)
        if model is not None:
            own, plain = inputs[model], name.removeprefix(f"{model}/")
            if own is not None and plain not in own:
                raise JobError(f"--shape: model {model!r} has no input {plain!r}{nearest(plain, own)}")
        elif len(listings) == len(inputs):
            every = {input_name for names in listings for input_name in names}
            raise JobError(f"--shape: no input {name!r} in any of the models {', '.join(inputs)}{nearest(name, every)}")


def check_shapes(interface: ModelInterface, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check that each `--shape` fits its input.

    Args:
        interface: The model's inputs.
        shapes: Shapes by input, without the batch dimension.

    Raises:
        InputError: a shape contradicts the config, or names no input.
    """
    tensors = {tensor.name: tensor for tensor in interface.inputs}
    for name, given in shapes.items():
        if name not in tensors:
            raise InputError(f"model {interface.name!r} has no input {name!r}{nearest(name, tensors)}")
        _check_shape(interface, tensors[name], given)


def asked(tensor: Tensor) -> str:
    """The option for the user to complete, such as `--shape X:D1,128` for an `X` of [-1, 128]."""
    dims = (f"D{place}" if dim == -1 else str(dim) for place, dim in enumerate(tensor.shape, start=1))
    return f"--shape {tensor.name}:{','.join(dims)}"


def _check_shape(interface: ModelInterface, tensor: Tensor, given: tuple[int, ...]) -> None:
    where = f"input {tensor.name!r} of model {interface.name!r} has shape {list(tensor.shape)}"
    option = f"--shape {tensor.name}:{','.join(map(str, given))}"
    if len(given) != len(tensor.shape):
        hint = " (without the batch dimension)" if interface.batched else ""
        raise InputError(f"{option}: wrong number of dimensions; {where}{hint}")
    if not fits(tensor.shape, given):
        raise InputError(f"{option}: {where}, of which only dimensions of -1 can be set")
