"""Caches of engines that launches share, for candidates that switch on an accelerator which builds engines.

The settings are part of what is launched, not of the candidate: they name a temporary folder, so neither the stored
config nor an exported one has them. Settings of the user's own stay.
"""

from __future__ import annotations

from tuner.config.config import ModelConfig
from tuner.space.knowledge import backend_of, knowledge


def with_caches(config: str, folder: str) -> str:
    """The text of a config that keeps engines in a folder; the same text if its model builds none.

    Args:
        config: The text of a config.pbtxt.
        folder: The folder's path as the server sees it.
    """
    if "execution_accelerator" not in config:
        return config
    parsed = ModelConfig.parse(config, "config.pbtxt")
    if not (backend := backend_of(parsed)):
        return config
    changes = {}
    for caches in knowledge(backend).caches:
        if not parsed.holds(caches.where):
            continue
        for name, value in caches.set.items():
            path = f"{caches.where}.{name}"
            if not parsed.holds(path):
                changes[path] = value.replace("{cache}", folder)
    return parsed.edited(changes).text
