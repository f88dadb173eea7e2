"""Which models can be tuned."""

from __future__ import annotations

from tritonclient.grpc import model_config_pb2


def why_not_tunable(config: model_config_pb2.ModelConfig) -> str | None:
    """Why a model cannot be tuned, in one line; None when it can.

    Args:
        config: The user's own, or as the server completed it.
    """
    if config.HasField("ensemble_scheduling") or config.platform == "ensemble":
        models = dict.fromkeys(step.model_name for step in config.ensemble_scheduling.step)
        names = f": {', '.join(models)}" if models else ""
        return f"it is an ensemble; tune the models that it is composed of by their names{names}"
    return None
