"""Entries of `model_warmup`: requests that Triton sends to each instance before the model is ready."""

from __future__ import annotations

from collections.abc import Sequence

from tritonclient.grpc import model_config_pb2

from tuner.config import literals
from tuner.config.config import ModelConfig
from tuner.core.record import Record

MOST_SHAPES = 4
"""The most shapes of requests to warm up, as each entry lengthens every launch."""
# The most batch sizes of each shape.
_MOST_SIZES = 4


class WarmUpInput(Record):
    """An input of a warm-up request.

    Attributes:
        name: Its name in the config.
        data_type: Its type in the config, such as `TYPE_FP32`.
        dims: Its shape in requests, without the batch dimension.
    """

    name: str
    data_type: str
    dims: tuple[int, ...]


WarmUpShape = tuple[WarmUpInput, ...]
"""The inputs of one request."""


def why_no_warm_up(effective: model_config_pb2.ModelConfig) -> str:
    """Why no warm-up can be made for a model, by its effective config; empty: it can."""
    reasons = {
        "it has a model_warmup of its own": bool(effective.model_warmup),
        "it is an ensemble; warm up its composing models": effective.HasField("ensemble_scheduling"),
        "it batches sequences, and a warm-up request belongs to none": effective.HasField("sequence_batching"),
    }
    return next((reason for reason, applies in reasons.items() if applies), "")


def with_warm_up(
    config: ModelConfig, effective: model_config_pb2.ModelConfig, shapes: Sequence[WarmUpShape], *, batch_size: int
) -> ModelConfig:
    """A config with an entry of `model_warmup` for each shape and batch size of requests; all other bytes stay.

    All values are 0, and strings are empty. Triton's random data are random bytes: NaN among floats, and indices out of
    any range.

    Args:
        config: The config, without `model_warmup`.
        effective: The config as the server completed it.
        shapes: Distinct shapes of requests, at least one.
        batch_size: Inferences in each request.
    """
    sizes = _sizes(effective, batch_size)
    entries = []
    for number, inputs in enumerate(shapes, start=1):
        shape = f", shape {number}" if len(shapes) > 1 else ""
        entries += [_entry(f"batch of {size}{shape}", size, inputs) for size in sizes]
    text = config.text if not config.text or config.text.endswith("\n") else f"{config.text}\n"
    return ModelConfig.parse(text + "".join(entries), config.source)


def _sizes(effective: model_config_pb2.ModelConfig, request: int) -> tuple[int, ...]:
    """The batch sizes to warm up: that of a request, and those that the dynamic batcher prefers or may reach."""
    most = effective.max_batch_size
    if not effective.HasField("dynamic_batching") or most <= request:
        return (request,)
    preferred = [size for size in sorted(effective.dynamic_batching.preferred_batch_size) if request < size < most]
    return tuple(dict.fromkeys((request, *preferred[-_MOST_SIZES + 2 :], most)))


def _entry(name: str, batch_size: int, inputs: WarmUpShape) -> str:
    lines = ["model_warmup {", f"  name: {literals.spelled(name)}", f"  batch_size: {batch_size}"]
    for each in inputs:
        dims = ", ".join(map(str, each.dims))
        lines += [
            "  inputs {",
            f"    key: {literals.spelled(each.name)}",
            f"    value {{ data_type: {each.data_type} dims: [ {dims} ] zero_data: true }}",
            "  }",
        ]
    return "".join(f"{line}\n" for line in [*lines, "}"])
