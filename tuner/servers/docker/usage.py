"""CPU and memory usage of a container as its engine reports it, for processes that are not visible here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from docker.models.containers import Container

from tuner.servers.docker.engine import ENGINE_ERRORS
from tuner.servers.usage import ServerUsage


def container_usage(container: Container) -> ServerUsage | None:
    """CPU seconds since the container's start, and memory in use without the cache of files, as `docker stats` counts.

    None if it does not run. Takes up to a second, the engine's own sampling period.
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
    # cgroup v2, and v1.
    cache = details.get("inactive_file", details.get("total_inactive_file", 0))
    return ServerUsage(cpu_s=processors["cpu_usage"]["total_usage"] / 1e9, memory_bytes=max(0, memory["usage"] - cache))
