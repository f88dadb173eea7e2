"""A container in which a Triton runs: as docker-py makes it, and as a person would with `docker run`."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from docker import DockerClient
from docker.errors import APIError, NotFound
from docker.models.containers import Container
from docker.types import LogConfig, Ulimit

from tuner.servers.docker_binds import Bind
from tuner.servers.docker_engine import engine_trouble
from tuner.servers.docker_identity import Identity
from tuner.servers.docker_volume import Volume

GRPC_PORT = 8001

# Of a container that is being removed already, or whose device is still busy, the engine refuses the removal.
_REMOVAL_S = 20.0
_REMOVAL_EVERY_S = 0.05


@dataclass(frozen=True)
class ContainerSpec:
    """What to start. Its gRPC port is published on a free port.

    Attributes:
        name: Of the container; known before the container is there, so that it can be removed whatever happens.
        image: Name or id.
        arguments: The command line within.
        binds: Files and folders of this machine, and volumes, that it sees.
        labels: How its leftovers are known.
        identity: As whom it runs.
        shm_bytes: Size of its /dev/shm, through which the Python backend hands its tensors.
        memory_bytes: Limit on its memory, without swap; None: no limit.
        publish_on: The address of the engine's machine on which its port is published.
        network: That it joins; None: the engine's default.
    """

    name: str
    image: str
    arguments: tuple[str, ...]
    binds: tuple[Bind | Volume, ...]
    labels: Mapping[str, str]
    identity: Identity
    shm_bytes: int
    memory_bytes: int | None
    publish_on: str = "127.0.0.1"
    network: str | None = None

    def create(self, client: DockerClient) -> Container:
        """Make the container, without starting it. Raises docker-py's errors."""
        who = self.identity
        return client.containers.create(
            self.image,
            list(self.arguments),
            name=self.name,
            labels=dict(self.labels),
            mounts=[bind.mount() for bind in self.binds],
            ports={f"{GRPC_PORT}/tcp": (self.publish_on, 0)},
            network=self.network,
            shm_size=self.shm_bytes,
            mem_limit=self.memory_bytes,
            memswap_limit=self.memory_bytes,
            user=who.user,
            group_add=who.groups,
            userns_mode=who.user_namespace,
            ulimits=[Ulimit(name=name, soft=value, hard=value) for name, value in who.ulimits.items()],
            environment=dict(who.environment),
            # The driver whose output every engine can hand out again, whatever this one's default is.
            log_config=LogConfig(type=LogConfig.types.JSON),
        )

    def __str__(self) -> str:
        """The `docker run` that does the same."""
        return shlex.join(("docker", "run", "--rm", *self._options(), self.image, *self.arguments))

    def _options(self) -> Iterator[str]:
        who = self.identity
        yield f"--name={self.name}"
        yield f"--publish={self.publish_on}::{GRPC_PORT}"
        if self.network is not None:
            yield f"--network={self.network}"
        yield f"--shm-size={self.shm_bytes}"
        if self.memory_bytes is not None:
            yield f"--memory={self.memory_bytes}"
            yield f"--memory-swap={self.memory_bytes}"
        if who.user is not None:
            yield f"--user={who.user}"
        yield from (f"--group-add={group}" for group in who.groups)
        if who.user_namespace:
            yield f"--userns={who.user_namespace}"
        yield from (f"--ulimit={name}={value}" for name, value in who.ulimits.items())
        yield from (f"--env={name}={value}" for name, value in who.environment.items())
        yield from (f"--mount={bind}" for bind in self.binds)


def remove_container(client: DockerClient, name: str) -> None:
    """Kill a container and remove it with its anonymous volumes; harmless when there is none.

    Raises:
        TuningError: the engine does not do it.
    """
    deadline = time.monotonic() + _REMOVAL_S
    with engine_trouble():
        while True:
            try:
                client.containers.get(name).remove(v=True, force=True)
            except NotFound:
                return
            except APIError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_REMOVAL_EVERY_S)
            else:
                return
