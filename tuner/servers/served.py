"""A model repository from a running server: a folder with the effective config.pbtxt of each model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tuner.config.config import ModelConfig
from tuner.config.repository import CONFIG, ModelRepository
from tuner.core.errors import JobError, ServerError, nearest
from tuner.core.names import why_no_folder
from tuner.options.endpoint import Endpoint
from tuner.servers.client import TritonClient


def served_repository(endpoint: Endpoint, models: Sequence[str], into: Path) -> ModelRepository:
    """Write the effective configs of loaded models to a folder, as a repository.

    Args:
        endpoint: The server's endpoint.
        models: The names of the models; empty: all loaded models.
        into: An empty folder.

    Raises:
        JobError: the server does not answer, or a named model is not loaded.
    """
    try:
        with TritonClient(endpoint) as client:
            loaded = client.loaded()
            if missing := [name for name in models if name not in loaded]:
                hint = nearest(missing[0], loaded)
                raise JobError(f"--model: no model {missing[0]!r} loaded at {endpoint.address}{hint}")
            if not loaded:
                raise JobError(f"--url: no model loaded at {endpoint.address}; give MODEL_REPO, or load a model there")
            for name in models or loaded:
                if reason := why_no_folder(name):
                    raise JobError(
                        f"--url: model name {name!r} at {endpoint.address} {reason}; choose other models by --model"
                    )
                config = ModelConfig.from_proto(client.model_config(name))
                (into / name / "1").mkdir(parents=True)
                (into / name / CONFIG).write_text(config.text, encoding="utf-8")
    except ServerError as error:
        raise JobError(f"--url: {error}") from error
    return ModelRepository.open(into)
