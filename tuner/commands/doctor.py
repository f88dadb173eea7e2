"""`tritontune doctor`: what tuning needs, whether it is there, and what to do when it is not."""

from __future__ import annotations

import platform
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from tuner.errors import JobError, TritontuneError, TuningError
from tuner.machine import Machine
from tuner.models.repository import ModelFolder, ModelRepository
from tuner.models.tunable import why_not_tunable
from tuner.nvml import Gpu
from tuner.servers.docker import engine_problem, remove_docker_leftovers
from tuner.servers.installation import find_triton
from tuner.servers.process import remove_process_leftovers
from tuner.servers.work_folder import remove_abandoned_work


class State(Enum):
    """How a check came out, as it is shown."""

    OK = "[green]ok[/]  "
    NOT_NEEDED = "[dim]--[/]  "
    FIX = "[red]fix[/] "


@dataclass(frozen=True)
class Check:
    """One line of the doctor's.

    Attributes:
        name: What was looked at.
        state: How it is.
        detail: What was found, or what to do.
    """

    name: str
    state: State
    detail: str


def doctor(repository: str | None, triton_path: str | None, image: str | None) -> None:
    """Print a line for each check.

    Raises:
        JobError: an option is empty.
        TuningError: something is missing without which nothing can be tuned.
    """
    for option, value in {"image": image, "triton-path": triton_path}.items():
        if value == "":
            raise JobError(f"--{option}: is empty; give a value, or leave it out")
    console = Console()
    missing = []
    for check in checks(Path(repository) if repository else None, Path(triton_path) if triton_path else None, image):
        console.print(f"{check.state.value}{check.name:<11}{escape(check.detail)}", soft_wrap=True, highlight=False)
        if check.state is State.FIX:
            missing.append(check.name)
    if missing:
        raise TuningError(f"to mend first: {', '.join(missing)}")


def checks(repository: Path | None, triton_path: Path | None, image: str | None) -> Iterator[Check]:
    """Look at everything in turn."""
    yield Check("python", State.OK, f"{platform.python_version()} ({sys.executable})")
    docker = _docker(image)
    # One way to a server is enough, but what was named should be there.
    enough = image is not None and docker.state is State.OK and triton_path is None
    yield from _triton(triton_path, State.NOT_NEEDED if enough else State.FIX)
    yield docker
    machine = Machine.here()
    yield Check("cpu", State.OK, f"{machine.cpus} cores")
    gpus = ", ".join(_gpu(gpu) for gpu in machine.gpus)
    yield Check("gpu", State.OK if gpus else State.NOT_NEEDED, gpus or "NVML finds none; models run on the CPU")
    yield _ports()
    yield _leftovers()
    if repository is not None:
        yield from _repository(repository)


def _triton(path: Path | None, otherwise: State) -> Iterator[Check]:
    try:
        found = find_triton(path)
    except TritontuneError as error:
        yield Check("triton", otherwise, str(error))
        return
    yield Check("triton", State.OK, f"{found.description}: {found.binary}")
    if found.wheel:
        yield Check("libpython", State.OK, str(found.wheel.libpython))


def _docker(image: str | None) -> Check:
    if problem := engine_problem(image):
        return Check("docker", State.FIX if image else State.NOT_NEEDED, problem)
    has = f"has the image {image}" if image else "is not needed; name an image to use it, with --image"
    return Check("docker", State.OK, f"the engine answers, and {has}")


def _gpu(gpu: Gpu) -> str:
    return gpu.name if gpu.memory_bytes is None else f"{gpu.name} ({gpu.memory_bytes / 2**30:.0f} GiB)"


def _ports() -> Check:
    try:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            return Check("ports", State.OK, f"free ones on 127.0.0.1, such as {listening.getsockname()[1]}")
    except OSError as error:
        return Check("ports", State.FIX, f"none can be opened on 127.0.0.1: {error.strerror}")


def _leftovers() -> Check:
    """Of runs that were killed; what it finds it removes."""
    try:
        folders = remove_abandoned_work()
        servers = remove_process_leftovers()
        containers = 0 if engine_problem(None) else remove_docker_leftovers()
    except TritontuneError as error:
        return Check("leftovers", State.FIX, f"of killed runs, which cannot be removed: {error}")
    found = [_count(servers, "server"), _count(containers, "container"), _count(folders, "folder")]
    told = " and ".join(text for text in found if text)
    return Check("leftovers", State.OK, f"removed {told} of killed runs" if told else "none of killed runs")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number > 1)}" if number else ""


def _repository(path: Path) -> Iterator[Check]:
    try:
        models = ModelRepository.open(path).models
    except TritontuneError as error:
        yield Check("repository", State.FIX, str(error))
        return
    yield Check("repository", State.OK, f"{path}: {len(models)} model{'s' * (len(models) > 1)}")
    for model in models:
        yield _model(model)


def _model(model: ModelFolder) -> Check:
    try:
        if model.config is None:
            return Check("model", State.OK, f"{model.name}: no config.pbtxt; the server will be asked for it")
        reason = why_not_tunable(model.config.proto)
    except TritontuneError as error:
        return Check("model", State.FIX, str(error))
    if reason:
        return Check("model", State.NOT_NEEDED, f"{model.name}: cannot be tuned: {reason}")
    return Check("model", State.OK, f"{model.name}: versions {', '.join(map(str, model.versions)) or 'none'}")
