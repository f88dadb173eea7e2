"""Starts Triton as a process of this machine."""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tuner.core.errors import Cause, LaunchError
from tuner.core.machine import Machine
from tuner.core.mark import VARIABLE, Mark, marks_on_files
from tuner.core.redaction import argument_without_secrets
from tuner.options.endpoint import Header
from tuner.options.environment import assignments, in_words, resolved
from tuner.options.gpus import ALL, process_environment, shown_by_cuda
from tuner.servers.arguments import triton_arguments
from tuner.servers.installation import TritonInstallation
from tuner.servers.pins import NO_PINS, Pins
from tuner.servers.ports import free_port
from tuner.servers.process_server import ProcessServer
from tuner.servers.processes import end_processes
from tuner.servers.protocols import Launch, Server
from tuner.servers.python_envs import remove_python_envs
from tuner.servers.readiness import PortTakenError, await_ready
from tuner.servers.starter import start_process

_PORT_TRIES = 5
_PLAIN_PATH = re.compile(r"[\w@%+=:,./-]+", re.ASCII)


class ProcessLauncher:
    """Starts servers as processes, on free ports of the loopback interface.

    Args:
        installation: The Triton.
        extra_args: Further arguments for Triton, after all others.
        gpus: The GPUs that it may use: `all`, `none`, or a list of indices and UUIDs; None: as our environment allows.
        environment: Environment variables; None passes on the value from this process.
        headers: Headers sent with every request.
        pins: What the servers may use of this machine.

    Raises:
        JobError: this machine does not have those GPUs.
    """

    def __init__(
        self,
        installation: TritonInstallation,
        extra_args: Sequence[str] = (),
        *,
        gpus: str | None = None,
        environment: Mapping[str, str | None] | None = None,
        headers: tuple[Header, ...] = (),
        pins: Pins = NO_PINS,
    ) -> None:
        self._installation = installation
        self._extra_args = tuple(extra_args)
        self._gpus = gpus
        self._devices = process_environment(pins.gpus or gpus, Machine.here().gpus if pins.gpus or gpus else ())
        self._variables = environment or {}
        self._headers = headers
        self._pins = pins

    @property
    def description(self) -> str:
        """The Triton, with its GPUs, variables and arguments."""
        gpus = [f"GPUs {self._gpus}"] if self._gpus else []
        arguments = map(argument_without_secrets, self._extra_args)
        triton = f"{self._installation.description} as a process"
        return ", ".join([triton, *gpus, *in_words(self._variables), *arguments])

    @property
    def gpus(self) -> str:
        """The GPUs that a server sees: the requested ones, else those that its environment allows."""
        return self._pins.gpus or self._gpus or shown_by_cuda(ALL, {**os.environ, **resolved(self._variables)})

    @property
    def machine(self) -> Machine:
        """This machine, with the cores that servers are pinned to."""
        return Machine.here(self._pins.cores)

    def launch(self, request: Launch) -> Server:
        """Start a server and return once the model is ready.

        A server that crashes before it is ready gets a second attempt, as simultaneous starts of several Tritons may
        disturb each other. The first log is kept, and the second log begins with a line about it.

        Raises:
            LaunchError: the model did not become ready; nothing is left behind.
        """
        deadline = time.monotonic() + request.deadline_s
        about_first = ""
        for _ in range(_PORT_TRIES):
            server = self._start(request, about_first)
            try:
                await_ready(server, deadline=deadline, allowed_s=request.deadline_s)
            except PortTakenError:
                server.stop(grace_s=0)
            except BaseException as error:
                server.stop(grace_s=0)
                if about_first or not isinstance(error, LaunchError) or not server.crash:
                    raise
                about_first = _set_aside(request.log, server.crash)
            else:
                return server
        raise LaunchError(f"no free port for Triton: other programs took {_PORT_TRIES} in a row", cause=Cause.CRASHED)

    def remove_leftovers(self) -> tuple[str, ...]:
        """End servers whose owner is gone, and remove their files. Returns the names of the servers."""
        return remove_process_leftovers()

    def close(self) -> None:
        """Do nothing, as nothing is held between launches."""

    def _start(self, request: Launch, preface: str = "") -> ProcessServer:
        mark, port = Mark.new(), free_port()
        mark.folder.mkdir(mode=0o700)
        asked = {**resolved(self._variables), **request.patch.variables(), **self._devices}
        try:
            preparation = self._installation.prepare(mark.folder, {**os.environ, **asked})
            repository = _plain(request.repository, mark.folder)
            command = [
                str(self._installation.binary),
                *triton_arguments(request, mark=mark, repository=repository, grpc_port=port),
                "--grpc-address=127.0.0.1",
                f"--backend-config=python,shm-region-prefix-name={mark.shared_memory_prefix}",
                *preparation.arguments,
                *request.patch.arguments(self._extra_args),
            ]
            own = {VARIABLE: str(mark), "TMPDIR": str(mark.folder)}
            environment = {**asked, **preparation.environment, **own}
            process = start_process(command, environment, request.log, preface, self._pins.cores)
        except BaseException:
            mark.remove_files()
            raise
        # Variables passed on from this process are omitted, as the user's shell has them when repeating the command.
        values = {name: value for name, value in asked.items() if self._variables.get(name, "") is not None}
        return ProcessServer(
            process,
            mark=mark,
            model=request.model,
            log=request.log,
            grpc_address=f"127.0.0.1:{port}",
            headers=self._headers,
            command=shlex.join(
                [
                    *self._pinning(),
                    "env",
                    *assignments({**values, **preparation.environment}),
                    *map(argument_without_secrets, command),
                ]
            ),
        )

    def _pinning(self) -> Sequence[str]:
        return ["taskset", "--cpu-list", self._pins.core_list] if self._pins.cores else []


def remove_process_leftovers() -> tuple[str, ...]:
    """End servers whose owner is gone, of any Triton, and remove their files. Returns the names of the servers.

    A server's name is the name of its folder, and an environment variable of its processes.
    """
    abandoned = end_processes(lambda mark: mark.abandoned)
    abandoned |= {mark for mark in marks_on_files() if mark.abandoned}
    for mark in abandoned:
        mark.remove_files()
    remove_python_envs()
    return tuple(sorted(map(str, abandoned)))


def _set_aside(log: Path, crash: str) -> str:
    """Keep the log of a crashed first attempt; returns the first line for the next log."""
    first = log.with_name(f"{log.name}.first")
    log.replace(first)
    return f"tritontune: Triton {crash} before it was ready (see {first.name}); this is the second attempt\n"


def _plain(repository: Path, folder: Path) -> Path:
    """The repository, or a link to it if its path needs quoting in the shell command of the Python backend."""
    repository = repository.absolute()
    if _PLAIN_PATH.fullmatch(str(repository)):
        return repository
    link = folder / "repository"
    link.symlink_to(repository)
    return link
