"""Writes model repositories of the Python models in `tuner/testing/models`, each described in its docstring.

All have the input `IN` and the output `OUT`, FP32 of shape [4], and support batches.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

_SOURCES = Path(__file__).parent / "models"

CONFIG = """\
backend: "python"
max_batch_size: {max_batch_size}
input [ {{ name: "IN" data_type: TYPE_FP32 dims: [ 4 ] }} ]
output [ {{ name: "OUT" data_type: TYPE_FP32 dims: [ 4 ] }} ]
instance_group [ {{ kind: KIND_CPU count: {instances} }} ]
{more}
"""


def config_text(*, instances: int = 1, max_batch_size: int = 8, more: str = "", **parameters: object) -> str:
    """The text of a config for one of the models. The docstring of its code describes the `parameters`."""
    text = CONFIG.format(instances=instances, max_batch_size=max_batch_size, more=more)
    return text + "".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n' for key, value in parameters.items()
    )


def known_config(
    *,
    service_us: float = 1000,
    service_us_per_item: float = 0,
    instances: int = 1,
    max_batch_size: int = 8,
    more: str = "",
    **parameters: object,
) -> str:
    """A config for the backend `fake` of the fake Triton: a model with known service times.

    Args:
        service_us: Service time of an execution, in us.
        service_us_per_item: Additional service time of each item of the batch, in us.
        instances: Number of instances.
        max_batch_size: The largest batch.
        more: Further text of the config, such as `dynamic_batching { }`.
        parameters: Further parameters; see `tuner.testing.fake.native`.
    """
    settings = {"service_us": service_us, "service_us_per_item": service_us_per_item, **parameters}
    text = config_text(instances=instances, max_batch_size=max_batch_size, more=more, **settings)
    return text.replace('backend: "python"', 'backend: "fake"')


_SEQUENCES = """\
sequence_batching {{
  {strategy}
  max_sequence_idle_microseconds: 20000000
  control_input [
    {{ name: "START" control [ {{ kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] }} ] }},
    {{ name: "END" control [ {{ kind: CONTROL_SEQUENCE_END int32_false_true: [ 0, 1 ] }} ] }},
    {{ name: "READY" control [ {{ kind: CONTROL_SEQUENCE_READY int32_false_true: [ 0, 1 ] }} ] }},
    {{ name: "CORRID" control [ {{ kind: CONTROL_SEQUENCE_CORRID data_type: {ids} }} ] }}
  ]
}}
"""


def stateful_config(strategy: str = "", ids: str = "TYPE_UINT64") -> str:
    """Additional text for the config of `stateful`, with the strategy of the sequence batcher and the type of ids."""
    return _SEQUENCES.format(strategy=strategy, ids=ids)


@dataclass(frozen=True)
class ModelRepositoryFactory:
    """Writes models into a repository.

    Attributes:
        path: The repository.
    """

    path: Path

    def add(self, source: str = "identity", *, name: str | None = None, config: str | None = None) -> str:
        """Add a model with the code of `tuner/testing/models/SOURCE.py`.

        Args:
            source: Name of the code.
            name: Name of the model; by default that of the code.
            config: The text of its config.pbtxt; by default `config_text()`; empty: no config.pbtxt is written.

        Returns:
            The name.
        """
        name = name or source
        version = self.path / name / "1"
        version.mkdir(parents=True)
        shutil.copyfile(_SOURCES / f"{source}.py", version / "model.py")
        if config != "":
            (self.path / name / "config.pbtxt").write_text(config or config_text(), encoding="utf-8")
        return name

    def add_known(self, name: str = "known", config: str | None = None) -> str:
        """Add a model with known service times, for a fake Triton.

        Args:
            name: Name of the model.
            config: The text of its config.pbtxt; by default `known_config()`.

        Returns:
            The name.
        """
        (self.path / name / "1").mkdir(parents=True)
        (self.path / name / "config.pbtxt").write_text(config or known_config(), encoding="utf-8")
        return name
