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
from tuner.servers.docker.identity import our_identity
from tuner.servers.docker.leftovers import labels_of, remove_leftovers
from tuner.servers.docker.look import await_version, check_network, check_volumes
from tuner.servers.docker.refusals import NotTritonError, RefusedError, refusal
from tuner.servers.docker.server import DockerServer
from tuner.servers.docker.site import Site, site_of
from tuner.servers.docker.supply import Supplier, Supply
from tuner.servers.docker.volume import remove_volume
from tuner.servers.docker.watch import Watch
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
        image: With `tritonserver` on its PATH; the engine must have it (see `docker_pull.ensure_image`).
        options: What is asked of each container.
        triton_args: More arguments for the server, after all others.
        headers: Sent with every request.
        always_copy: Copy repositories into containers even where the engine could mount them.
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
        self._supplier = Supplier(image, always_copy=always_copy)

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
        arguments = map(argument_without_secrets, self._triton_args)
        return ", ".join([*version, f"image {self._image} ({digest}) in Docker", *self._options.words(), *arguments])

    @cached_property
    def machine(self) -> Machine:
        """The engine's, with the cores that a container may use: this one, or another, of which it tells no GPUs.

        Raises:
            TuningError: the engine does not say.
        """
        with closing(connect()) as client, engine_trouble():
            distant = site_of(client).is_distant
            told = client.info() if distant else {}
        machine = Machine(cpus=told["NCPU"], gpus=(), processor=told["Architecture"]) if distant else Machine.here()
        return replace(machine, cpus=None if machine.cpus is None else self._options.cores(machine.cpus))

    @cached_property
    def gpus(self) -> str | None:
        """Those that a server sees: `all`, `none`, or a list of indices and UUIDs; None: another machine's.

        Raises:
            TuningError: the engine does not say where it is.
        """
        with closing(connect()) as client, engine_trouble():
            if site_of(client).is_distant:
                return None
        return shown_by_cuda(self._options.gpus or NONE, resolved(self._options.environment))

    def look(self) -> None:
        """Start the image once, as each launch will but without a model, to see that it can be, and which Triton it is.

        Raises:
            NoGpuRuntimeError: the engine cannot give GPUs to containers.
            JobError: the image is no Triton, or something that was asked of its container cannot be.
            TuningError: the engine cannot be used.
        """
        mark, client = Mark.new(), connect()
        arguments = ("tritonserver", "--model-repository=/tmp", *BARE, *self._triton_args)
        with closing(client), work_folder() as folder, engine_trouble():
            check_volumes(client, self._options.mounts)
            site = site_of(client)
            check_network(site, self._options.network)
            try:
                container, _ = self._started(client, self._spec(client, mark, arguments, site))
                self._version = await_version(Watch(container, folder / "log"), folder / "log")
            except ImageNotFound as error:
                raise JobError(f"--image {self._image}: {explain(error)}") from error
            except NotTritonError as error:
                raise JobError(f"--image {self._image} is no Triton image: it holds no tritonserver") from error
            except RefusedError as error:
                raise JobError(f"--server docker: {error}") from error
            except LaunchError as error:
                raise JobError(f"--image {self._image}: Triton does not start in it: {error}") from error
            finally:
                remove_container(client, str(mark))

    def launch(self, request: Launch) -> Server:
        """Start a server and return once the model is ready.

        Raises:
            LaunchError: it did not become ready; nothing is left behind.
            TuningError: the engine or the image cannot be used, so no launch will ever succeed.
        """
        deadline = None
        for _ in range(_PORT_TRIES):
            server = self._start(request)
            # Only now, as a first copy of large models over a network takes its time, which is not the server's.
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
        raise LaunchError(f"other programs took {_PORT_TRIES} free ports before Triton could", cause=Cause.CRASHED)

    def remove_leftovers(self) -> tuple[str, ...]:
        """Remove the containers and volumes whose owner is gone. Returns the names of their servers.

        Raises:
            TuningError: the engine does not do it.
        """
        return remove_docker_leftovers()

    def close(self) -> None:
        """Remove what was kept for the next launch, as the end of the process does; another launch may follow."""
        self._supplier.close()

    def _start(self, request: Launch) -> DockerServer:
        mark, client = Mark.new(), connect()
        try:
            with engine_trouble():
                site = site_of(client)
                supply = self._supplier.supply(client, site, request.repository, mark)
                # On its machine's own network, the port must be one that nobody has.
                port = free_port() if self._options.on_host_network else GRPC_PORT
                arguments = (
                    "tritonserver",
                    *triton_arguments(request, mark=mark, repository=supply.target, grpc_port=port),
                    *([f"--grpc-address={site.publish_on}"] if self._options.on_host_network else []),
                    *self._triton_args,
                )
                spec = self._spec(client, mark, arguments, site, supply)
                container, spec = self._started(client, spec, supply)
                return DockerServer(
                    client,
                    container,
                    mark=mark,
                    model=request.model,
                    log=request.log,
                    command=str(spec),
                    port=port,
                    site=site,
                    supply=supply,
                    headers=self._headers,
                )
        except BaseException:
            with closing(client):
                remove_container(client, str(mark))
                remove_volume(client, str(mark))
            raise

    def _started(
        self, client: DockerClient, spec: ContainerSpec, supply: Supply | None = None
    ) -> tuple[Container, ContainerSpec]:
        """A container that was started as the spec says, or without what this engine cannot give."""
        while True:
            try:
                return _run(client, spec, supply), spec
            except _LimitsRefusedError:
                self._raises_limits = False
                spec = replace(spec, identity=replace(spec.identity, ulimits={}))
            except _AddressRefusedError:
                self._has_address = False
                spec = replace(spec, publish_on=site_of(client).publish_at_worst_on)
            remove_container(client, spec.name)

    def _spec(
        self, client: DockerClient, mark: Mark, arguments: tuple[str, ...], site: Site, supply: Supply | None = None
    ) -> ContainerSpec:
        security = client.info()["SecurityOptions"]
        return ContainerSpec(
            name=str(mark),
            image=self._image,
            arguments=arguments,
            binds=supply.mounts if supply else (),
            labels=labels_of(mark, site),
            identity=our_identity(security, raise_limits=self._raises_limits, user=self._options.user),
            options=self._options,
            publish_on=site.publish_on if self._has_address else site.publish_at_worst_on,
            network=site.network,
        )


def remove_docker_leftovers() -> tuple[str, ...]:
    """See `DockerLauncher.remove_leftovers`."""
    with closing(connect()) as client:
        return remove_leftovers(client)


def _run(client: DockerClient, spec: ContainerSpec, supply: Supply | None) -> Container:
    try:
        container = spec.create(client)
        if supply:
            supply.fill(container, spec.identity)
        container.start()
    except ImageNotFound:
        raise
    except APIError as error:
        reason = explain(error)
        if spec.identity.ulimits and "rlimit" in reason:
            raise _LimitsRefusedError from error
        if spec.publish_on not in _ANYWHERE and "cannot assign requested address" in reason:
            raise _AddressRefusedError from error
        raise refusal(error, gpus=spec.options.gpus) from error
    except (TypeError, ValueError, InvalidArgument, InvalidVersion) as error:
        raise JobError(f"--docker-arg: {' '.join(str(error).split())}") from error
    return container


class _LimitsRefusedError(Exception):
    """The engine itself runs under limits that it may not raise; a server can do without that."""


class _AddressRefusedError(Exception):
    """The engine's machine lacks the address by which we reach it: it is behind another, which passes on to it."""
