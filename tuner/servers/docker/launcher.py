"""Starts Triton in containers of a Docker engine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property

from docker import DockerClient
from docker.errors import APIError, ImageNotFound, InvalidArgument, InvalidVersion
from docker.models.containers import Container

from tuner.core.errors import Cause, JobError, LaunchError
from tuner.core.machine import Machine
from tuner.core.mark import Mark
from tuner.core.redaction import argument_without_secrets
from tuner.options.endpoint import Header
from tuner.options.environment import resolved
from tuner.options.gpus import NONE, shown_by_cuda
from tuner.servers.arguments import BARE, triton_arguments
from tuner.servers.docker.container import GRPC_PORT, ContainerSpec, remove_container
from tuner.servers.docker.container_options import ContainerOptions
from tuner.servers.docker.engine import connect, engine_problem, engine_trouble, explain
from tuner.servers.docker.engine_location import EngineLocation, locate_engine
from tuner.servers.docker.file_transfer import FileTransfer, TransferPlanner
from tuner.servers.docker.identity import our_identity
from tuner.servers.docker.leftovers import labels_of, remove_leftovers
from tuner.servers.docker.look import await_version, check_network, check_volumes
from tuner.servers.docker.server import DockerServer
from tuner.servers.docker.start_errors import ContainerRefusedError, NotTritonError, refusal
from tuner.servers.docker.volume import remove_volume
from tuner.servers.docker.watch import ContainerWatch
from tuner.servers.ports import free_port
from tuner.servers.protocols import Launch, Server
from tuner.servers.readiness import PortTakenError, await_ready
from tuner.servers.work_folder import work_folder

__all__ = ["DockerLauncher", "engine_problem", "remove_docker_leftovers"]

_PORT_TRIES = 5
_ANYWHERE = frozenset({"127.0.0.1", "0.0.0.0"})  # noqa: S104 (addresses that every machine has)


class DockerLauncher:
    """Starts servers as containers, one for each launch.

    Args:
        image: An image with `tritonserver` on its PATH, which the engine has (see `pull.ensure_image`).
        options: The user's options for each container.
        triton_args: Further arguments for Triton, after all others.
        headers: Headers sent with every request.
        always_copy: Copy repositories into containers even if the engine could mount them.
    """

    def __init__(
        self,
        image: str,
        options: ContainerOptions | None = None,
        triton_args: Sequence[str] = (),
        *,
        headers: tuple[Header, ...] = (),
        always_copy: bool = False,
    ) -> None:
        self._image = image
        self._options = options or ContainerOptions()
        self._triton_args = tuple(triton_args)
        self._headers = headers
        self._raises_limits = True
        self._has_address = True
        self._version: str | None = None
        self._transfers = TransferPlanner(image, always_copy=always_copy)

    @property
    def description(self) -> str:
        """The image with its digest, its Triton version (after `look`), and the containers' options.

        Raises:
            TuningError: the engine does not answer.
        """
        with closing(connect()) as client, engine_trouble():
            image = client.images.get(self._image)
        digest = next(iter(image.attrs["RepoDigests"] or ()), image.id)
        version = [f"Triton {self._version}"] if self._version else []
        arguments = map(argument_without_secrets, self._triton_args)
        return ", ".join([*version, f"image {self._image} ({digest}) in Docker", *self._options.words(), *arguments])

    @cached_property
    def machine(self) -> Machine:
        """The engine's machine, with the cores that a container may use. The GPUs of another machine are unknown.

        Raises:
            TuningError: the engine does not answer.
        """
        with closing(connect()) as client, engine_trouble():
            distant = locate_engine(client).is_distant
            info = client.info() if distant else {}
        if distant:
            machine = Machine(cpus=info["NCPU"], gpus=(), processor=info["Architecture"])
        else:
            machine = Machine.here(self._options.pins.cores)
        return replace(machine, cpus=None if machine.cpus is None else self._options.cores(machine.cpus))

    @cached_property
    def gpus(self) -> str | None:
        """The GPUs of this machine that a server sees: `all`, `none`, or indices and UUIDs; None: another machine's.

        Raises:
            TuningError: the location of the engine cannot be determined.
        """
        with closing(connect()) as client, engine_trouble():
            if locate_engine(client).is_distant:
                return None
        return shown_by_cuda(self._options.devices or NONE, resolved(self._options.variables))

    def look(self) -> None:
        """Start the image once without a model, to check that each launch can work, and to learn Triton's version.

        Raises:
            NoGpuRuntimeError: the engine cannot give GPUs to containers.
            JobError: the image has no Triton, or an option of the container cannot be satisfied.
            TuningError: the engine cannot be used.
        """
        mark, client = Mark.new(), connect()
        arguments = ("tritonserver", "--model-repository=/tmp", *BARE, *self._triton_args)
        with closing(client), work_folder() as folder, engine_trouble():
            check_volumes(client, self._options.mounts)
            location = locate_engine(client)
            check_network(location, self._options.network)
            try:
                container, _ = self._started(client, self._spec(client, mark, arguments, location))
                self._version = await_version(ContainerWatch(container, folder / "log"), folder / "log")
            except ImageNotFound as error:
                raise JobError(f"--image {self._image}: {explain(error)}") from error
            except NotTritonError as error:
                raise JobError(f"--image {self._image} is not a Triton image: it has no tritonserver") from error
            except ContainerRefusedError as error:
                raise JobError(f"--server docker: {error}") from error
            except LaunchError as error:
                raise JobError(f"--image {self._image}: Triton does not start: {error}") from error
            finally:
                remove_container(client, str(mark))

    def launch(self, request: Launch) -> Server:
        """Start a server and return once the model is ready.

        Raises:
            LaunchError: the model did not become ready; nothing is left behind.
            TuningError: the engine or the image cannot be used, so no launch will succeed.
        """
        deadline = None
        for _ in range(_PORT_TRIES):
            server = self._start(request)
            # The deadline starts here, as copying large models over a network does not count.
            deadline = deadline or time.monotonic() + request.deadline_s
            try:
                await_ready(server, deadline=deadline, allowed_s=request.deadline_s)
            except PortTakenError:
                server.stop(grace_s=0)
            except BaseException:
                server.stop(grace_s=0)
                raise
            else:
                return server
        raise LaunchError(f"no free port for Triton: other programs took {_PORT_TRIES} in a row", cause=Cause.CRASHED)

    def remove_leftovers(self) -> tuple[str, ...]:
        """Remove the containers and volumes whose owner is gone. Returns the names of their servers.

        Raises:
            TuningError: the engine fails to remove them.
        """
        return remove_docker_leftovers()

    def close(self) -> None:
        """Remove the data kept between launches; further launches are possible."""
        self._transfers.close()

    def _start(self, request: Launch) -> DockerServer:
        mark, client = Mark.new(), connect()
        try:
            with engine_trouble():
                location = locate_engine(client)
                transfer = self._transfers.plan(client, location, request.repository, mark)
                if request.caches is not None:
                    transfer = transfer.also_with(request.caches)
                # On the host network, the port must be free on the machine.
                port = free_port() if self._options.on_host_network else GRPC_PORT
                arguments = (
                    "tritonserver",
                    *triton_arguments(request, mark=mark, repository=transfer.target, grpc_port=port),
                    *([f"--grpc-address={location.publish_on}"] if self._options.on_host_network else []),
                    *request.patch.arguments(self._triton_args),
                )
                spec = self._spec(client, mark, arguments, location, transfer)
                spec = replace(spec, options=spec.options.with_variables(request.patch.variables()))
                container, spec = self._started(client, spec, transfer)
                return DockerServer(
                    client,
                    container,
                    mark=mark,
                    model=request.model,
                    log=request.log,
                    command=str(spec),
                    port=port,
                    location=location,
                    transfer=transfer,
                    headers=self._headers,
                )
        except BaseException:
            with closing(client):
                remove_container(client, str(mark))
                remove_volume(client, str(mark))
            raise

    def _started(
        self, client: DockerClient, spec: ContainerSpec, transfer: FileTransfer | None = None
    ) -> tuple[Container, ContainerSpec]:
        """Start a container by its spec, without limits or the publish address if this engine refuses them."""
        while True:
            try:
                return _run(client, spec, transfer), spec
            except _LimitsRefusedError:
                self._raises_limits = False
                spec = replace(spec, identity=replace(spec.identity, ulimits={}))
            except _AddressRefusedError:
                self._has_address = False
                spec = replace(spec, publish_on=locate_engine(client).publish_at_worst_on)
            remove_container(client, spec.name)

    def _spec(
        self,
        client: DockerClient,
        mark: Mark,
        arguments: tuple[str, ...],
        location: EngineLocation,
        transfer: FileTransfer | None = None,
    ) -> ContainerSpec:
        security = client.info()["SecurityOptions"]
        return ContainerSpec(
            name=str(mark),
            image=self._image,
            arguments=arguments,
            binds=transfer.mounts if transfer else (),
            labels=labels_of(mark, location),
            identity=our_identity(security, raise_limits=self._raises_limits, user=self._options.user),
            options=self._options,
            publish_on=location.publish_on if self._has_address else location.publish_at_worst_on,
            network=location.network,
        )


def remove_docker_leftovers() -> tuple[str, ...]:
    """See `DockerLauncher.remove_leftovers`."""
    with closing(connect()) as client:
        return remove_leftovers(client)


def _run(client: DockerClient, spec: ContainerSpec, transfer: FileTransfer | None) -> Container:
    try:
        container = spec.create(client)
        if transfer:
            transfer.fill(container, spec.identity)
        container.start()
    except ImageNotFound:
        raise
    except APIError as error:
        reason = explain(error)
        if spec.identity.ulimits and "rlimit" in reason:
            raise _LimitsRefusedError from error
        if spec.publish_on not in _ANYWHERE and "cannot assign requested address" in reason:
            raise _AddressRefusedError from error
        raise refusal(error, gpus=spec.options.devices) from error
    except (TypeError, ValueError, InvalidArgument, InvalidVersion) as error:
        raise JobError(f"--docker-arg: {' '.join(str(error).split())}") from error
    return container


class _LimitsRefusedError(Exception):
    """The engine may not raise limits; the server must run without raised limits."""


class _AddressRefusedError(Exception):
    """The engine's machine lacks the address by which we reach it, as behind a NAT."""
