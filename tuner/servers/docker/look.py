"""A look at what a user asks of Docker, before anything is tuned with it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from docker import DockerClient
from docker.errors import NotFound

from tuner.core.errors import Cause, JobError, LaunchError
from tuner.core.quantities import format_duration
from tuner.options.mounts import UserMount
from tuner.servers.docker.site import Site
from tuner.servers.docker.watch import Watch
from tuner.servers.server import End
from tuner.servers.triton_log import find_version, last_words, read_log, why_it_ended

# The first start from an image that was just pulled reads gigabytes, and CUDA takes its time with many GPUs.
_LOOK_S = 180.0
_EVERY_S = 0.02


def await_version(watch: Watch, log: Path) -> str:
    """Which Triton runs in a container that was just started without a model.

    Args:
        watch: Over the container.
        log: To which that copies its output.

    Raises:
        LaunchError: it ended before it said that, or does not say it in time.
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
                f"it did not say within {format_duration(_LOOK_S)} which Triton it is",
                cause=Cause.TIMED_OUT,
                last_words=last_words(text),
            )
        time.sleep(_EVERY_S)


def check_volumes(client: DockerClient, mounts: Iterable[UserMount]) -> None:
    """See that the volumes to mount are there; the engine would make those that are not.

    Raises:
        JobError: one is not.
    """
    for mount in mounts:
        if mount.kind == "volume":
            try:
                client.volumes.get(mount.source)
            except NotFound:
                raise JobError(
                    f"--mount: Docker has no volume {mount.source!r}; make it with `docker volume create "
                    f"{mount.source}`, or write a folder with a slash, as ./{mount.source}"
                ) from None


def check_network(site: Site, network: str | None) -> None:
    """See that servers on a network can be reached from here.

    Raises:
        JobError: we are in a container that is not on it.
    """
    own = site.networks or ("host",)
    if network and site.container and network not in own:
        raise JobError(
            f"--network {network}: tritontune is in a container on {', '.join(own)}, which does not reach servers on "
            f"{network}; leave it out, or start that container on {network}, too"
        )


def _ended(end: End, text: str) -> LaunchError:
    memory = end.out_of_memory
    how = f"tritonserver {end.how}{' for want of memory' if memory else ''}: {why_it_ended(text)}"
    cause = Cause.OUT_OF_MEMORY if memory else Cause.CRASHED
    return LaunchError(how, cause=cause, last_words=last_words(text))
