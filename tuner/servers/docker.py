"""Starts Triton in containers of this machine's Docker engine."""

from __future__ import annotations

import socket
import time
from contextlib import closing

from docker import DockerClient
from docker.errors import APIError, ImageNotFound
from docker.models.containers import Container

from tuner.errors import Cause, LaunchError
from tuner.machine import Machine
from tuner.servers.arguments import triton_arguments
from tuner.servers.docker_binds import binds_of
from tuner.servers.docker_container import GRPC_PORT, ContainerSpec, remove_container
from tuner.servers.docker_engine import connect, engine_problem, engine_trouble, explain
from tuner.servers.docker_identity import Identity, our_identity
from tuner.servers.docker_server import DockerServer
from tuner.servers.mark import Mark
from tuner.servers.protocols import Launch, Server
from tuner.servers.readiness import await_ready

__all__ = ["DockerLauncher", "engine_problem"]

_MARK_LABEL = "tritontune.mark"
_HOST_LABEL = "tritontune.host"


class DockerLauncher:
    """Starts servers as containers, one for each launch.

    Args:
        image: With `tritonserver` on its PATH; it must be on this machine (see `engine_problem`).
        shm_bytes: Size of each container's /dev/shm, through which the Python backend hands its tensors.
        memory_bytes: Limit on each container's memory, without swap; None: no limit.
    """

    def __init__(self, image: str, *, shm_bytes: int = 1 << 30, memory_bytes: int | None = None) -> None:
        self._image = image
        self._shm_bytes = shm_bytes
        self._memory_bytes = memory_bytes
        self._raises_limits = True

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

    @property
    def machine(self) -> Machine:
        """This one."""
        return Machine.here()

    @property
    def gpus(self) -> str:
        """All, as far as the engine gives containers any."""
        return "all"

    def launch(self, request: Launch) -> Server:
        """Start a server and return once the model is ready.

        Raises:
            LaunchError: it did not become ready; nothing is left behind.
            TuningError: the engine or the image cannot be used, so no launch will ever succeed.
        """
        deadline = time.monotonic() + request.deadline_s
        server = self._start(request)
        try:
            await_ready(server, deadline=deadline, allowed_s=request.deadline_s)
        except BaseException:
            server.stop(grace_s=0)
            raise
        return server

    def remove_leftovers(self) -> int:
        """Remove the containers whose owner was a process of this machine and is gone. Returns how many that was.

        Raises:
            TuningError: the engine does not do it.
        """
        with closing(connect()) as client, engine_trouble():
            labels = [_MARK_LABEL, f"{_HOST_LABEL}={socket.gethostname()}"]
            marked = client.containers.list(all=True, filters={"label": labels}, sparse=True)
            marks = [Mark.of(container.attrs["Labels"][_MARK_LABEL]) for container in marked]
            abandoned = [mark for mark in marks if mark and mark.abandoned]
            for mark in abandoned:
                remove_container(client, str(mark))
        return len(abandoned)

    def close(self) -> None:
        """Nothing is held."""

    def _start(self, request: Launch) -> DockerServer:
        try:
            return self._start_container(request)
        except _LimitsRefusedError:
            self._raises_limits = False
            return self._start_container(request)

    def _start_container(self, request: Launch) -> DockerServer:
        mark, client = Mark.new(), connect()
        try:
            with engine_trouble():
                identity = our_identity(client.info()["SecurityOptions"], raise_limits=self._raises_limits)
                spec = self._spec(request, mark, identity)
                container = _run(client, spec)
                return DockerServer(
                    client, container, mark=mark, model=request.model, log=request.log, command=str(spec)
                )
        except BaseException:
            with closing(client):
                remove_container(client, str(mark))
            raise

    def _spec(self, request: Launch, mark: Mark, identity: Identity) -> ContainerSpec:
        repository, *linked = binds_of(request.repository)
        return ContainerSpec(
            name=str(mark),
            image=self._image,
            arguments=(
                "tritonserver",
                *triton_arguments(request, mark=mark, repository=repository.target, grpc_port=GRPC_PORT),
            ),
            binds=(repository, *linked),
            labels={_MARK_LABEL: str(mark), _HOST_LABEL: socket.gethostname()},
            identity=identity,
            shm_bytes=self._shm_bytes,
            memory_bytes=self._memory_bytes,
        )


def _run(client: DockerClient, spec: ContainerSpec) -> Container:
    try:
        container = spec.create(client)
        container.start()
    except ImageNotFound:
        raise
    except APIError as error:
        reason = explain(error)
        if spec.identity.ulimits and "rlimit" in reason:
            raise _LimitsRefusedError from error
        raise LaunchError(f"Docker starts no container: {reason}", cause=Cause.CRASHED) from error
    return container


class _LimitsRefusedError(Exception):
    """The engine itself runs under limits that it may not raise; a server can do without that."""
