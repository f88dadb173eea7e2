"""Starts Triton in containers of a Docker engine."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace

from docker import DockerClient
from docker.errors import APIError, ImageNotFound
from docker.models.containers import Container

from tuner.errors import Cause, LaunchError
from tuner.servers.arguments import triton_arguments
from tuner.servers.docker_container import GRPC_PORT, ContainerSpec, remove_container
from tuner.servers.docker_engine import connect, engine_problem, engine_trouble, explain
from tuner.servers.docker_identity import Identity, our_identity
from tuner.servers.docker_leftovers import labels_of, remove_leftovers
from tuner.servers.docker_server import DockerServer
from tuner.servers.docker_site import Site, site_of
from tuner.servers.docker_supply import Supplier, Supply
from tuner.servers.docker_volume import remove_volume
from tuner.servers.mark import Mark
from tuner.servers.protocols import Launch, Server
from tuner.servers.readiness import await_ready

__all__ = ["DockerLauncher", "engine_problem", "remove_docker_leftovers"]


class DockerLauncher:
    """Starts servers as containers, one for each launch.

    Args:
        image: With `tritonserver` on its PATH; the engine must have it (see `engine_problem`).
        shm_bytes: Size of each container's /dev/shm, through which the Python backend hands its tensors.
        memory_bytes: Limit on each container's memory, without swap; None: no limit.
        always_copy: Copy repositories into containers even where the engine could mount them.
    """

    def __init__(
        self, image: str, *, shm_bytes: int = 1 << 30, memory_bytes: int | None = None, always_copy: bool = False
    ) -> None:
        self._image = image
        self._shm_bytes = shm_bytes
        self._memory_bytes = memory_bytes
        self._raises_limits = True
        self._has_address = True
        self._supplier = Supplier(image, always_copy=always_copy)

    @property
    def description(self) -> str:
        """The image, by name and digest.

        Raises:
            TuningError: the engine does not say.
        """
        with closing(connect()) as client, engine_trouble():
            image = client.images.get(self._image)
        digest = next(iter(image.attrs["RepoDigests"] or ()), image.id)
        return f"image {self._image} ({digest}) in Docker"

    def launch(self, request: Launch) -> Server:
        """Start a server and return once the model is ready.

        Raises:
            LaunchError: it did not become ready; nothing is left behind.
            TuningError: the engine or the image cannot be used, so no launch will ever succeed.
        """
        server = self._start(request)
        # Only now, as a first copy of large models over a network takes its time, which is not the server's.
        deadline = time.monotonic() + request.deadline_s
        try:
            await_ready(server, deadline=deadline, allowed_s=request.deadline_s)
        except BaseException:
            server.stop(grace_s=0)
            raise
        return server

    def remove_leftovers(self) -> int:
        """Remove the containers and volumes whose owner is gone. Returns of how many servers they were.

        Raises:
            TuningError: the engine does not do it.
        """
        return remove_docker_leftovers()

    def close(self) -> None:
        """Remove what was kept for the next launch, as the end of the process does; another launch may follow."""
        self._supplier.close()

    def _start(self, request: Launch) -> DockerServer:
        while True:
            try:
                return self._start_container(request)
            except _LimitsRefusedError:
                self._raises_limits = False
            except _AddressRefusedError:
                self._has_address = False

    def _start_container(self, request: Launch) -> DockerServer:
        mark, client = Mark.new(), connect()
        try:
            with engine_trouble():
                site = site_of(client)
                identity = our_identity(client.info()["SecurityOptions"], raise_limits=self._raises_limits)
                supply = self._supplier.supply(client, site, request.repository, mark)
                spec = self._spec(request, mark, identity, site, supply)
                container = _run(client, spec, supply)
                return DockerServer(
                    client,
                    container,
                    mark=mark,
                    model=request.model,
                    log=request.log,
                    command=str(spec),
                    site=site,
                    supply=supply,
                )
        except BaseException:
            with closing(client):
                remove_container(client, str(mark))
                remove_volume(client, str(mark))
            raise

    def _spec(self, request: Launch, mark: Mark, identity: Identity, site: Site, supply: Supply) -> ContainerSpec:
        spec = ContainerSpec(
            name=str(mark),
            image=self._image,
            arguments=(
                "tritonserver",
                *triton_arguments(request, mark=mark, repository=supply.target, grpc_port=GRPC_PORT),
            ),
            binds=supply.mounts,
            labels=labels_of(mark, site),
            identity=identity,
            shm_bytes=self._shm_bytes,
            memory_bytes=self._memory_bytes,
            network=site.network,
        )
        return replace(spec, publish_on=site.publish_on if self._has_address else site.publish_at_worst_on)


def remove_docker_leftovers() -> int:
    """See `DockerLauncher.remove_leftovers`."""
    with closing(connect()) as client:
        return remove_leftovers(client)


def _run(client: DockerClient, spec: ContainerSpec, supply: Supply) -> Container:
    try:
        container = spec.create(client)
        supply.fill(container, spec.identity)
        container.start()
    except ImageNotFound:
        raise
    except APIError as error:
        reason = explain(error)
        if spec.identity.ulimits and "rlimit" in reason:
            raise _LimitsRefusedError from error
        if spec.publish_on not in {"127.0.0.1", "0.0.0.0"} and "cannot assign requested address" in reason:  # noqa: S104
            raise _AddressRefusedError from error
        raise LaunchError(f"Docker starts no container: {reason}", cause=Cause.CRASHED) from error
    return container


class _LimitsRefusedError(Exception):
    """The engine itself runs under limits that it may not raise; a server can do without that."""


class _AddressRefusedError(Exception):
    """The engine's machine lacks the address by which we reach it: it is behind another, which passes on to it."""
