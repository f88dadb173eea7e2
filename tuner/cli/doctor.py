"""`tritontune doctor`: checks the requirements of tuning, and prints the fix for each that is missing."""

from __future__ import annotations

import platform
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from tuner.config.repository import ModelFolder, ModelRepository
from tuner.config.tunable import why_not_loadable, why_not_tunable
from tuner.core.errors import JobError, TritontuneError, TuningError
from tuner.core.machine import Machine
from tuner.core.nvml import Gpu
from tuner.core.quantities import counted
from tuner.options.environment import resolved
from tuner.options.groups import ServerOptions, check_is_local
from tuner.servers.backends import backends_in_words, why_no_backend
from tuner.servers.choose_launcher import DEFAULT_IMAGE
from tuner.servers.docker.launcher import engine_problem, remove_docker_leftovers
from tuner.servers.installation import NoTritonError, TritonInstallation, find_triton
from tuner.servers.process import remove_process_leftovers
from tuner.servers.work_folder import remove_abandoned_work


class State(Enum):
    """The printed result of a check."""

    OK = "[green]ok[/]  "
    NOT_NEEDED = "[dim]--[/]  "
    FIX = "[red]fix[/] "


@dataclass(frozen=True)
class Check:
    """One check, printed as one line.

    Attributes:
        name: The checked requirement.
        state: The result.
        detail: The finding, or the fix.
    """

    name: str
    state: State
    detail: str


def doctor(repository: str | None, options: Mapping[str, Any]) -> None:
    """Print a line for each check.

    Args:
        repository: Model repository to check, too; None: none.
        options: How a server would be started, by the names of `ServerOptions`.

    Raises:
        JobError: an option is wrong.
        TuningError: something that tuning needs is missing.
    """
    wanted = ServerOptions.make(options)
    try:
        check_is_local(repository or "")
    except ValueError as error:
        raise JobError(f"MODEL_REPO: {error}") from None
    console = Console()
    missing = []
    for check in checks(Path(repository) if repository else None, wanted):
        console.print(f"{check.state.value}{check.name:<11}{escape(check.detail)}", soft_wrap=True, highlight=False)
        if check.state is State.FIX:
            missing.append(check.name)
    if missing:
        raise TuningError(f"not ready for tuning; fix: {', '.join(dict.fromkeys(missing))}")


def checks(repository: Path | None, wanted: ServerOptions) -> Iterator[Check]:
    """Make all checks, in order."""
    yield Check("python", State.OK, f"{platform.python_version()} ({sys.executable})")
    triton = _triton_here(wanted)
    yield from _ways_to_a_server(wanted, triton)
    machine = Machine.here()
    yield Check("cpu", State.OK, f"{machine.cpus} cores")
    gpus = ", ".join(_gpu(gpu) for gpu in machine.gpus)
    yield Check(
        "gpu", State.OK if gpus else State.NOT_NEEDED, gpus or "no NVIDIA GPU found (NVML): models run on the CPU"
    )
    yield _ports()
    yield _leftovers()
    if repository is not None:
        # The backends of an image are known only once it runs.
        here = triton if isinstance(triton, TritonInstallation) and not wanted.image else None
        yield from _repository(repository, here, wanted)


def _triton_here(wanted: ServerOptions) -> TritonInstallation | TritontuneError:
    """The Triton on this machine, or why there is none."""
    try:
        return find_triton(wanted.triton_path, wanted.triton_arg, resolved(wanted.env))
    except TritontuneError as error:
        return error


def _ways_to_a_server(wanted: ServerOptions, triton: TritonInstallation | TritontuneError) -> Iterator[Check]:
    """Check the ways to start a server. One is enough, but a way that the options name must work."""
    image = wanted.image
    problem = engine_problem(image)
    if isinstance(triton, TritontuneError):
        missing = str(triton)
        none_here = isinstance(triton, NoTritonError)
        in_docker = problem is None and wanted.triton_path is None and (image is not None or none_here)
        if in_docker and none_here:
            missing = "none on this machine: a run uses the image in Docker"
        yield Check("triton", State.NOT_NEEDED if in_docker else State.FIX, missing)
        taken = image or DEFAULT_IMAGE if in_docker else None
    else:
        yield Check("triton", State.OK, f"{triton.description}: {triton.binary}")
        yield Check("backends", State.OK, backends_in_words(triton, wanted.triton_arg))
        if triton.wheel:
            yield Check("libpython", State.OK, str(triton.wheel.libpython))
        taken = None
    yield _docker(image, problem, taken)


def _docker(image: str | None, problem: str | None, taken: str | None) -> Check:
    """The Docker engine; `taken` is the image that a run uses when this machine has no Triton."""
    if problem:
        return Check("docker", State.FIX if image else State.NOT_NEEDED, problem)
    if image:
        return Check("docker", State.OK, f"engine reachable, image {image} present")
    if taken is None:
        return Check("docker", State.OK, "engine reachable; not used, unless --image names an image")
    pulled = " (pulled first)" if engine_problem(taken) else ""
    return Check("docker", State.OK, f"engine reachable; a run uses {taken}{pulled}, or the image of --image")


def _gpu(gpu: Gpu) -> str:
    return gpu.name if gpu.memory_bytes is None else f"{gpu.name} ({gpu.memory_bytes / 2**30:.0f} GiB)"


def _ports() -> Check:
    try:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            return Check("ports", State.OK, f"127.0.0.1 has free ports, such as {listening.getsockname()[1]}")
    except OSError as error:
        return Check("ports", State.FIX, f"cannot open a port on 127.0.0.1: {error.strerror}")


def _leftovers() -> Check:
    """Remove leftovers of killed runs."""
    try:
        folders = remove_abandoned_work()
        servers = remove_process_leftovers()
        containers = () if engine_problem(None) else remove_docker_leftovers()
    except TritontuneError as error:
        return Check("leftovers", State.FIX, f"cannot remove what killed runs left: {error}")
    left = {"server": servers, "container": containers, "folder": folders}
    removed = "; ".join(counted(names, what) for what, names in left.items() if names)
    return Check("leftovers", State.OK, f"removed what killed runs left: {removed}" if removed else "none")


def _repository(path: Path, triton: TritonInstallation | None, wanted: ServerOptions) -> Iterator[Check]:
    try:
        models = ModelRepository.open(path).models
    except TritontuneError as error:
        yield Check("repository", State.FIX, str(error))
        return
    yield Check("repository", State.OK, f"{path}: {len(models)} model{'s' * (len(models) > 1)}")
    for model in models:
        yield _model(model, triton, wanted)


def _model(model: ModelFolder, triton: TritonInstallation | None, wanted: ServerOptions) -> Check:
    """The checks that `run` and `measure` make before they start a server."""
    try:
        not_loadable = why_not_loadable(model)
        not_tunable = why_not_tunable(model.config.proto) if model.config else None
    except TritontuneError as error:
        return Check("model", State.FIX, str(error))
    if reason := not_loadable or (triton and why_no_backend(model, triton, wanted.triton_arg)):
        return Check("model", State.FIX, reason)
    if not_tunable:
        return Check("model", State.NOT_NEEDED, f"{model.name}: cannot be tuned: {not_tunable}")
    without = "" if model.config else "no config.pbtxt, Triton completes it; "
    return Check("model", State.OK, f"{model.name}: {without}versions {', '.join(map(str, model.versions))}")
