"""Checks whether a model can be tuned, and whether Triton would load it."""

from __future__ import annotations

from collections.abc import Collection

from tritonclient.grpc import model_config_pb2

from tuner.config.repository import LARGEST_VERSION, ModelFolder


def why_not_tunable(config: model_config_pb2.ModelConfig) -> str | None:
    """Why a model cannot be tuned, in one line; None: it can be tuned.

    Args:
        config: The user's config, or the effective one.
    """
    if config.HasField("ensemble_scheduling") or config.platform == "ensemble":
        models = dict.fromkeys(step.model_name for step in config.ensemble_scheduling.step)
        names = f": {', '.join(models)}" if models else ""
        return f"it is an ensemble; tune its composing models instead{names}"
    return None


def why_not_loadable(model: ModelFolder) -> str | None:
    """Why Triton would not load a model, by its files, in one line; None: no reason found.

    Raises:
        ConfigError: the config of the model cannot be read.
    """
    config = model.config.proto if model.config else model_config_pb2.ModelConfig()
    if config.name and config.name != model.name:
        return (
            f"{model.path}: its config has name {config.name!r}, which must be the folder's; "
            f"write name: {model.name!r} or leave it out"
        )
    if reason := _why_no_batches(config):
        return f"{model.name}: {reason}"
    served = _served(config, {*model.versions, *model.misnamed.values()})
    for folder, version in model.misnamed.items():
        if version > LARGEST_VERSION:
            return f"{model.path / folder}: version above 2^63 - 1, at which Triton crashes; rename the folder"
        if version in served:
            return (
                f"{model.path / folder}: Triton takes it for version {version}, but then looks for a folder {version}; "
                "rename it to begin with a letter, or move it away"
            )
    if not served:
        wanted = "that its version_policy selects" if model.versions else "of a version, such as 1"
        return f"{model.path}: no folder {wanted}"
    return None


def _why_no_batches(config: model_config_pb2.ModelConfig) -> str | None:
    limit, preferred = config.max_batch_size, config.dynamic_batching.preferred_batch_size
    if limit < 0:
        return f"max_batch_size: must be >= 0, got {limit}"
    if limit and preferred and max(preferred) > limit:
        return f"dynamic_batching.preferred_batch_size: must be <= max_batch_size {limit}, got {max(preferred)}"
    return None


def _served(config: model_config_pb2.ModelConfig, versions: Collection[int]) -> set[int]:
    """The existing versions that Triton loads; by default the latest."""
    policy = config.version_policy
    if policy.HasField("all"):
        return set(versions)
    if policy.HasField("specific"):
        return set(versions) & set(policy.specific.versions)
    count = policy.latest.num_versions if policy.HasField("latest") else 1
    return set(sorted(versions)[-max(1, count) :])
