"""What a container takes, as its engine says: where its processes cannot be seen from here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from docker.models.containers import Container

from tuner.servers.docker.engine import ENGINE_ERRORS
from tuner.servers.usage import ServerUsage


def container_usage(container: Container) -> ServerUsage | None:
    """CPU seconds since the container's start, and memory in use without the cache of files, as `docker stats` counts.

    None of one that does not run. Takes up to a second: that is how often the engine itself looks.
    """
    try:
        stats = container.stats(stream=False, one_shot=True)
    except ENGINE_ERRORS:
        return None
    return _usage(stats) if isinstance(stats, dict) else None


def _usage(stats: Mapping[str, Any]) -> ServerUsage | None:
    memory, processors = stats.get("memory_stats") or {}, stats.get("cpu_stats") or {}
    details = memory.get("stats") or {}
    if "usage" not in memory or "cpu_usage" not in processors:
        return None
    # By the second version of control groups, and by the first.
    cache = details.get("inactive_file", details.get("total_inactive_file", 0))
    return ServerUsage(cpu_s=processors["cpu_usage"]["total_usage"] / 1e9, memory_bytes=max(0, memory["usage"] - cache))
