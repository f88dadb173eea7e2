"""Starts Triton in containers of this machine's Docker engine."""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from docker import DockerClient
from docker.errors import APIError, ImageNotFound, InvalidArgument, InvalidVersion
from docker.models.containers import Container

from tuner.errors import Cause, JobError, LaunchError
from tuner.machine import Machine
from tuner.servers.arguments import BARE, triton_arguments
from tuner.servers.container_options import ContainerOptions
from tuner.servers.docker_binds import Bind, binds_of
from tuner.servers.docker_container import GRPC_PORT, ContainerSpec, remove_container
from tuner.servers.docker_engine import connect, engine_problem, engine_trouble, explain
from tuner.servers.docker_identity import our_identity
from tuner.servers.docker_look import await_version, check_volumes
from tuner.servers.docker_refusals import NotTritonError, RefusedError, refusal
from tuner.servers.docker_server import DockerServer
from tuner.servers.docker_watch import Watch
from tuner.servers.gpus import NONE
from tuner.servers.mark import Mark
from tuner.servers.ports import free_port
from tuner.servers.protocols import Launch, Server
from tuner.servers.readiness import PortTakenError, await_ready

__all__ = ["DockerLauncher", "engine_problem"]

_MARK_LABEL = "tritontune.mark"
_HOST_LABEL = "tritontune.host"
_PORT_TRIES = 5


class DockerLauncher:
    """Starts servers as containers, one for each launch.

    Args:
        image: With `tritonserver` on its PATH; it must be on this machine (see `docker_pull.ensure_image`).
        options: What is asked of each container.
        triton_args: More arguments for the server, after all others.
    """

    def __init__(self, image: str, options: ContainerOptions | None = None, triton_args: Sequence[str] = ()) -> None:
        self._image = image
        self._options = options or ContainerOptions()
        self._triton_args = tuple(triton_args)
        self._raises_limits = True
        self._version: str | None = None

    @property
    def description(self) -> str:
        """The image, by name and digest, its Triton once it has been looked at, and what is asked of its containers.

        Raises:
            TuningError: the engine does not say.
        """
        with closing(connect()) as client, engine_trouble():
            image = client.images.get(self._image)
        digest = next(iter(image.attrs["RepoDigests"] or ()), image.id)
        version = [f"Triton {self._version}"] if self._version else []
        told = [*version, f"image {self._image} ({digest}) in Docker", *self._options.words(), *self._triton_args]
        return ", ".join(told)

    @property
    def gpus(self) -> str:
        """Those that a server sees: `all`, `none`, or a list of indices and UUIDs."""
        return self._options.gpus or NONE

    def look(self) -> None:
        """Start the image once, as each launch will but without a model, to see that it can be, and which Triton it is.

        Raises:
            NoGpuRuntimeError: the engine cannot give GPUs to containers.
            JobError: the image is no Triton, or something that was asked of its container cannot be.
            TuningError: the engine cannot be used.
        """
        mark, client = Mark.new(), connect()
        arguments = ("tritonserver", "--model-repository=/tmp", *BARE, *self._triton_args)
        with closing(client), tempfile.TemporaryDirectory(prefix="tritontune-look-") as folder, engine_trouble():
            check_volumes(client, self._options.mounts)
            try:
                container, _ = self._started(client, self._spec(client, mark, arguments))
                self._version = await_version(Watch(container, Path(folder) / "log"), Path(folder) / "log")
            except NotTritonError as error:
                raise JobError(f"--image {self._image} is no Triton image: it holds no tritonserver") from error
            except RefusedError as error:
                raise JobError(f"--server docker: {error}") from error
            except LaunchError as error:
                raise JobError(f"--image {self._image}: Triton does not start in it: {error}") from error
            finally:
                remove_container(client, str(mark))

    @property
    def machine(self) -> Machine:
        """This one."""
        return Machine.here()

    def launch(self, request: Launch) -> Server:
        """Start a server and return once the model is ready.

        Raises:
            LaunchError: it did not become ready; nothing is left behind.
            TuningError: the engine or the image cannot be used, so no launch will ever succeed.
        """
        deadline = time.monotonic() + request.deadline_s
        for _ in range(_PORT_TRIES):
            server = self._start(request)
            try:
                await_ready(server, deadline=deadline, allowed_s=request.deadline_s)
            except PortTakenError:
                server.stop(grace_s=0)
            except BaseException:
                server.stop(grace_s=0)
                raise
            else:
                return server
        raise LaunchError(f"other programs took {_PORT_TRIES} free ports before Triton could", cause=Cause.CRASHED)

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
        mark, client = Mark.new(), connect()
        try:
            with engine_trouble():
                binds = binds_of(request.repository)
                # On this machine's own network, the port must be one that nobody has.
                port = free_port() if self._options.on_host_network else GRPC_PORT
                arguments = (
                    "tritonserver",
                    *triton_arguments(request, mark=mark, repository=binds[0].target, grpc_port=port),
                    *(["--grpc-address=127.0.0.1"] if self._options.on_host_network else []),
                    *self._triton_args,
                )
                container, spec = self._started(client, self._spec(client, mark, arguments, binds))
                return DockerServer(
                    client, container, mark=mark, model=request.model, log=request.log, command=str(spec), port=port
                )
        except BaseException:
            with closing(client):
                remove_container(client, str(mark))
            raise

    def _started(self, client: DockerClient, spec: ContainerSpec) -> tuple[Container, ContainerSpec]:
        """A container that was started as the spec says, or without the limits that this engine cannot raise."""
        try:
            return _run(client, spec), spec
        except _LimitsRefusedError:
            self._raises_limits = False
            remove_container(client, spec.name)
            without = replace(spec, identity=replace(spec.identity, ulimits={}))
            return _run(client, without), without

    def _spec(
        self, client: DockerClient, mark: Mark, arguments: tuple[str, ...], binds: tuple[Bind, ...] = ()
    ) -> ContainerSpec:
        security = client.info()["SecurityOptions"]
        return ContainerSpec(
            name=str(mark),
            image=self._image,
            arguments=arguments,
            binds=binds,
            labels={_MARK_LABEL: str(mark), _HOST_LABEL: socket.gethostname()},
            identity=our_identity(security, raise_limits=self._raises_limits, user=self._options.user),
            options=self._options,
        )


def _run(client: DockerClient, spec: ContainerSpec) -> Container:
    try:
        container = spec.create(client)
        container.start()
    except ImageNotFound:
        raise
    except APIError as error:
        if spec.identity.ulimits and "rlimit" in explain(error):
            raise _LimitsRefusedError from error
        raise refusal(error, gpus=spec.options.gpus) from error
    except (TypeError, ValueError, InvalidArgument, InvalidVersion) as error:
        raise JobError(f"--docker-arg: {' '.join(str(error).split())}") from error
    return container


class _LimitsRefusedError(Exception):
    """The engine itself runs under limits that it may not raise; a server can do without that."""
