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
from tuner.options import check_is_local
from tuner.servers.choose import DEFAULT_IMAGE
from tuner.servers.docker import engine_problem, remove_docker_leftovers
from tuner.servers.installation import NoTritonError, find_triton
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
    try:
        check_is_local(repository or "")
    except ValueError as error:
        raise JobError(f"MODEL_REPO: {error}") from None
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
    yield from _ways_to_a_server(image, triton_path)
    machine = Machine.here()
    yield Check("cpu", State.OK, f"{machine.cpus} cores")
    gpus = ", ".join(_gpu(gpu) for gpu in machine.gpus)
    yield Check("gpu", State.OK if gpus else State.NOT_NEEDED, gpus or "NVML finds none; models run on the CPU")
    yield _ports()
    yield _leftovers()
    if repository is not None:
        yield from _repository(repository)


def _ways_to_a_server(image: str | None, path: Path | None) -> Iterator[Check]:
    """One is enough, but what was named should be there."""
    problem = engine_problem(image)
    try:
        found = find_triton(path)
    except TritontuneError as error:
        missing = str(error)
        in_docker = problem is None and path is None and (image is not None or isinstance(error, NoTritonError))
        if in_docker and isinstance(error, NoTritonError):
            missing = "none on this machine, and none is needed: Docker has one"
        yield Check("triton", State.NOT_NEEDED if in_docker else State.FIX, missing)
        taken = image or DEFAULT_IMAGE if in_docker else None
    else:
        yield Check("triton", State.OK, f"{found.description}: {found.binary}")
        if found.wheel:
            yield Check("libpython", State.OK, str(found.wheel.libpython))
        taken = None
    yield _docker(image, problem, taken)


def _docker(image: str | None, problem: str | None, taken: str | None) -> Check:
    """The engine; `taken` is the image that a run takes, where there is no other Triton."""
    if problem:
        return Check("docker", State.FIX if image else State.NOT_NEEDED, problem)
    if image:
        return Check("docker", State.OK, f"the engine answers, and has the image {image}")
    if taken is None:
        return Check("docker", State.OK, "the engine answers, and is not needed; name an image to use it, with --image")
    pulled = " (it is pulled first)" if engine_problem(taken) else ""
    return Check("docker", State.OK, f"the engine answers; a run takes {taken}{pulled}, or what --image names")


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
