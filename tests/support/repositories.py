"""Lives in `tuner.testing.repositories` now."""

from tuner.testing.repositories import CONFIG, ModelRepositoryFactory, config_text, known_config, stateful_config

__all__ = ["CONFIG", "ModelRepositoryFactory", "config_text", "known_config", "stateful_config"]
