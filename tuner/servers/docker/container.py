"""A container that runs Triton: created with docker-py, and shown as a `docker run` command."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from docker import DockerClient
from docker.models.containers import Container
from docker.types import DeviceRequest, LogConfig, Mount, Ulimit

from tuner.core.redaction import argument_without_secrets, value_of_variable
from tuner.options.docker_arguments import docker_run_options, entrypoint_arguments, merged
from tuner.options.environment import resolved
from tuner.options.gpus import ALL, CONTAINER_DEVICES, NONE
from tuner.options.mounts import UserMount
from tuner.servers.docker.binds import Bind
from tuner.servers.docker.container_options import ContainerOptions
from tuner.servers.docker.identity import ContainerUser
from tuner.servers.docker.removal import remove_for_certain
from tuner.servers.docker.volume import Volume

GRPC_PORT = 8001
# NVIDIA's images request all GPUs by this variable. NVIDIA's runtime follows it if there is no device request.
_NO_GPU = {CONTAINER_DEVICES: "void"}


@dataclass(frozen=True)
class ContainerSpec:
    """The container to create. Its gRPC port is published on a free port, unless it uses the host network.

    Attributes:
        name: The container's name, chosen in advance so that it can be removed in any case.
        image: The image's name or id.
        arguments: The command line in the container.
        binds: Files, folders and volumes to mount.
        labels: Labels by which leftovers are recognised.
        identity: The user, groups and limits that it runs with.
        options: The user's options.
        publish_on: The address of the engine's machine on which the gRPC port is published.
        network: The Docker network, unless the user names one; None: the engine's default.
    """

    name: str
    image: str
    arguments: tuple[str, ...]
    binds: tuple[Bind | Volume, ...]
    labels: Mapping[str, str]
    identity: ContainerUser
    options: ContainerOptions = field(default_factory=ContainerOptions)
    publish_on: str = "127.0.0.1"
    network: str | None = None

    def create(self, client: DockerClient) -> Container:
        """Make the container, without starting it.

        Raises:
            DockerException: docker-py failed.
            TypeError: an argument from the user's `docker_arg` has the wrong type.
            ValueError: an argument from the user's `docker_arg` has a wrong value.
        """
        return client.containers.create(self.image, list(self.arguments), **self._keywords())

    def __str__(self) -> str:
        """The equivalent `docker run` command, without secrets."""
        inner = map(argument_without_secrets, (*entrypoint_arguments(self.options.keywords), *self.arguments))
        return shlex.join(("docker", "run", "--rm", *self._flags(), self.image, *inner))

    def _keywords(self) -> dict[str, Any]:
        who, asked = self.identity, self.options
        keywords = {
            "name": self.name,
            "labels": dict(self.labels),
            "mounts": [*(bind.mount() for bind in self.binds), *map(_mount, asked.mounts)],
            "shm_size": asked.shm_bytes,
            "mem_limit": asked.memory_bytes,
            "memswap_limit": asked.memory_bytes,
            "user": who.user,
            "group_add": who.groups,
            "userns_mode": who.user_namespace,
            "ulimits": [Ulimit(name=name, soft=value, hard=value) for name, value in who.ulimits.items()],
            "environment": resolved(self._environment()),
            "device_requests": device_requests(asked.devices),
            # `docker logs` works with this driver on every engine, whatever its default.
            "log_config": LogConfig(type=LogConfig.types.JSON),
        }
        if network := asked.network or self.network:
            keywords["network"] = network
        if not asked.on_host_network:
            keywords["ports"] = {f"{GRPC_PORT}/tcp": (self.publish_on, 0)}
        return merged(keywords, asked.keywords)

    def _environment(self) -> Mapping[str, str | None]:
        without_gpu = _NO_GPU if self.options.devices == NONE else {}
        return {**self.identity.environment, **without_gpu, **self.options.variables}

    def _flags(self) -> Iterator[str]:
        who, asked = self.identity, self.options
        yield f"--name={self.name}"
        if network := asked.network or self.network:
            yield f"--network={network}"
        if not asked.on_host_network:
            yield f"--publish={self.publish_on}::{GRPC_PORT}"
        yield from gpus_flag(asked.devices)
        yield f"--shm-size={asked.shm_bytes}"
        if asked.memory_bytes is not None:
            yield f"--memory={asked.memory_bytes}"
            yield f"--memory-swap={asked.memory_bytes}"
        if who.user is not None:
            yield f"--user={who.user}"
        yield from (f"--group-add={group}" for group in who.groups)
        if who.user_namespace:
            yield f"--userns={who.user_namespace}"
        yield from (f"--ulimit={name}={value}" for name, value in who.ulimits.items())
        for name, value in self._environment().items():
            text = value and value_of_variable(name, value) if name in asked.variables else value
            yield f"--env={name}" if text is None else f"--env={name}={text}"
        yield from (f"--mount={mount}" for mount in (*self.binds, *asked.mounts))
        yield from map(argument_without_secrets, docker_run_options(asked.keywords))


def device_requests(gpus: str | None) -> list[DeviceRequest]:
    """The device requests for Docker's engine. `gpus`: `all`, `none`, or names; None: no request."""
    if gpus in {None, NONE}:
        return []
    if gpus == ALL:
        return [DeviceRequest(count=-1, capabilities=[["gpu"]])]
    return [DeviceRequest(device_ids=str(gpus).split(","), capabilities=[["gpu"]])]


def gpus_flag(gpus: str | None) -> list[str]:
    """The GPUs as an option of `docker run`, which reads CSV and therefore needs the quotes."""
    if gpus in {None, NONE}:
        return []
    return [f"--gpus={ALL}" if gpus == ALL else f'--gpus="device={gpus}"']


def _mount(mount: UserMount) -> Mount:
    return Mount(mount.target, mount.source, type=mount.kind, read_only=not mount.writable)


def remove_container(client: DockerClient, name: str) -> None:
    """Kill a container, and remove it with its anonymous volumes; no error if it does not exist.

    Raises:
        TuningError: the engine fails to remove it.
    """
    remove_for_certain(lambda: client.containers.get(name).remove(v=True, force=True))
