"""A model's inputs and outputs, from its effective config."""

from __future__ import annotations

from dataclasses import dataclass

from tritonclient.grpc import model_config_pb2

from tuner.core.errors import InputError


@dataclass(frozen=True)
class Tensor:
    """An input or output.

    Attributes:
        datatype: KServe's name, such as `FP32` or `BYTES`.
        shape: Its shape in the config, without the batch dimension; -1 is variable.
        optional: Whether a request may omit the input.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True)
class ModelInterface:
    """A model as a client sees it.

    Attributes:
        max_batch_size: Highest number of inferences in a request; 0: requests have no batch dimension.
    """

    name: str
    max_batch_size: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def batched(self) -> bool:
        """Whether requests have a batch dimension, which comes first."""
        return self.max_batch_size > 0

    @classmethod
    def of(cls, config: model_config_pb2.ModelConfig) -> ModelInterface:
        """The interface by an effective config.

        Raises:
            InputError: a tensor has an unknown data type.
        """
        return cls(
            name=config.name,
            max_batch_size=config.max_batch_size,
            inputs=tuple(Tensor(i.name, _datatype(i), tuple(i.dims), optional=i.optional) for i in config.input),
            outputs=tuple(Tensor(o.name, _datatype(o), tuple(o.dims)) for o in config.output),
        )


def _datatype(tensor: model_config_pb2.ModelInput | model_config_pb2.ModelOutput) -> str:
    value = model_config_pb2.DataType.DESCRIPTOR.values_by_number.get(tensor.data_type)
    if value is None:
        raise InputError(f"{tensor.name}: data type {tensor.data_type} is unknown to the installed tritonclient")
    name = str(value.name).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name
