"""Checks of the user's Docker options, before anything is tuned."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from docker import DockerClient
from docker.errors import NotFound

from tuner.core.errors import Cause, JobError, LaunchError
from tuner.core.quantities import format_duration
from tuner.options.mounts import UserMount
from tuner.servers.docker.engine_location import EngineLocation
from tuner.servers.docker.watch import ContainerWatch
from tuner.servers.server import End
from tuner.servers.triton_log import find_version, last_words, read_log, why_it_ended

# In s: the first start of a pulled image reads gigabytes, and CUDA is slow to start with many GPUs.
_LOOK_S = 180.0
_EVERY_S = 0.02


def await_version(watch: ContainerWatch, log: Path) -> str:
    """The version of the Triton in a container that was just started without a model.

    Args:
        watch: The watch over the container.
        log: The file that its output is copied to.

    Raises:
        LaunchError: Triton ended before it reported its version, or did not report it in time.
    """
    deadline = time.monotonic() + _LOOK_S
    while True:
        end = watch.end
        text = read_log(log)
        if version := find_version(text):
            return version
        if end:
            raise _ended(end, text)
        if time.monotonic() > deadline:
            raise LaunchError(
                f"it did not report its version within {format_duration(_LOOK_S)}",
                cause=Cause.TIMED_OUT,
                last_words=last_words(text),
            )
        time.sleep(_EVERY_S)


def check_volumes(client: DockerClient, mounts: Iterable[UserMount]) -> None:
    """Check that the volumes to mount exist; the engine would silently create missing ones.

    Raises:
        JobError: a volume does not exist.
    """
    for mount in mounts:
        if mount.kind == "volume":
            try:
                client.volumes.get(mount.source)
            except NotFound:
                raise JobError(
                    f"--mount: no Docker volume {mount.source!r}; create it with "
                    f"`docker volume create {mount.source}`, or write a folder with a slash: ./{mount.source}"
                ) from None


def check_network(location: EngineLocation, network: str | None) -> None:
    """Check that servers on a Docker network can be reached from this process.

    Raises:
        JobError: this process runs in a container that is not on it.
    """
    own = location.networks or ("host",)
    if network and location.container and network not in own:
        raise JobError(
            f"--network {network}: not reachable from tritontune's own container, which is on {', '.join(own)}; "
            f"leave it out, or start that container on {network}, too"
        )


def _ended(end: End, text: str) -> LaunchError:
    memory = end.out_of_memory
    how = f"tritonserver {end.how}{' (out of memory)' if memory else ''}: {why_it_ended(text)}"
    cause = Cause.OUT_OF_MEMORY if memory else Cause.CRASHED
    return LaunchError(how, cause=cause, last_words=last_words(text))
