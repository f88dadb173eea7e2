"""Chooses a launcher: a local process, or Docker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace

from tuner.config.repository import ModelFolder
from tuner.core.errors import JobError, TritontuneError
from tuner.core.machine import Machine
from tuner.core.quantities import counted
from tuner.options.endpoint import Header
from tuner.options.environment import resolved
from tuner.options.gpus import ALL, gpus_of_runtime
from tuner.options.groups import ServerOptions, as_option
from tuner.servers.backends import check_backends
from tuner.servers.contradictions import asking_for_docker, refuse_contradictions
from tuner.servers.docker.container_options import ContainerOptions
from tuner.servers.docker.engine import connect, engine_trouble
from tuner.servers.docker.launcher import DockerLauncher, engine_problem
from tuner.servers.docker.pull import ImageNameError, SeePull, ensure_image
from tuner.servers.docker.start_errors import NoGpuRuntimeError
from tuner.servers.installation import NoTritonError, find_triton
from tuner.servers.pins import NO_PINS, Pins
from tuner.servers.process import ProcessLauncher
from tuner.servers.protocols import Launcher

DEFAULT_IMAGE = "nvcr.io/nvidia/tritonserver:26.10-py3"
"""The release of October 2026, the newest in NVIDIA's release notes when this was written:
https://docs.nvidia.com/deeplearning/triton-inference-server/release-notes/rel-26-10.html
"""


def choose_launcher(
    job: ServerOptions,
    note: Callable[[str], None],
    see_pull: SeePull = lambda _pull: None,
    *,
    headers: tuple[Header, ...] = (),
    models: Sequence[ModelFolder] = (),
    pins: Pins = NO_PINS,
) -> Launcher:
    """The launcher for a job, after a test start of its Triton.

    `auto` takes Docker if an option needs it, else a Triton on this machine, and if there is none, Docker.

    Args:
        job: The server options.
        note: Called with a line if a fallback was chosen: Docker, or containers without a GPU.
        see_pull: Called with the progress of pulling the image.
        headers: Headers sent to the servers with every request.
        models: The models to serve, whose backends a Triton on this machine must have.
        pins: What the servers may use of this machine.

    Raises:
        JobError: the options cannot be satisfied; one line says why.
        TuningError: the image cannot be pulled.
    """
    for_docker = asking_for_docker(job)
    refuse_contradictions(job)
    image = job.image or DEFAULT_IMAGE
    if job.server == "docker":
        _get_image(job, image, see_pull)
        return _in_docker(job, image, note, headers, pins)
    if for_docker:
        try:
            _get_image(job, image, see_pull)
        except ImageNameError:
            raise
        except TritontuneError as problem:
            raise JobError(f"{as_option(for_docker[0])} needs Docker: {problem}") from problem
        return _in_docker(job, image, note, headers, pins)
    try:
        return _as_process(job, headers, models, pins)
    except NoTritonError as nothing_here:
        if job.server == "process":
            raise
        try:
            _get_image(job, image, see_pull)
        except TritontuneError as problem:
            raise JobError(f"{nothing_here}; Docker cannot be used instead: {problem}") from problem
    note(f"no Triton on this machine; using {image} in Docker")
    return _in_docker(job, image, note, headers, pins)


def clear_leftovers(launcher: Launcher, note: Callable[[str], None]) -> None:
    """Remove the leftovers of killed runs, and note the names of their servers."""
    if left := launcher.remove_leftovers():
        note(f"removed leftovers of killed runs: {counted(left, 'server')}")


def _as_process(
    job: ServerOptions, headers: tuple[Header, ...], models: Sequence[ModelFolder], pins: Pins
) -> ProcessLauncher:
    installation = find_triton(job.triton_path, job.arguments, resolved(job.env))
    check_backends(models, installation, job.arguments)
    if "TMPDIR" in job.env:
        raise JobError("--env TMPDIR: each server gets its own folder, below tritontune's TMPDIR; set that instead")
    return ProcessLauncher(installation, job.arguments, gpus=job.gpus, environment=job.env, headers=headers, pins=pins)


def _get_image(job: ServerOptions, image: str, see_pull: SeePull) -> None:
    if problem := engine_problem(None):
        raise JobError(f"--server docker: {problem}" if job.server == "docker" else problem)
    ensure_image(image, see_pull)


def _in_docker(
    job: ServerOptions, image: str, note: Callable[[str], None], headers: tuple[Header, ...], pins: Pins
) -> DockerLauncher:
    gpus = job.gpus or gpus_of_runtime(resolved(job.env))
    options = ContainerOptions(
        gpus=gpus or _usual_gpus(),
        shm_bytes=job.shm_size or ContainerOptions.shm_bytes,
        memory_bytes=job.memory,
        mounts=job.mount,
        environment=job.env,
        network=job.network,
        user=job.user,
        more=job.docker_arg,
        pins=pins,
    )
    launcher = DockerLauncher(image, options, job.arguments, headers=headers)
    if pins and launcher.gpus is None:
        raise JobError(
            "--parallel: the Docker engine is on another machine, whose slots are unknown; use --executor ray"
        )
    try:
        launcher.look()
    except NoGpuRuntimeError as error:
        if gpus or pins.gpus:
            raise
        note(f"containers run without a GPU: {error}")
        launcher = DockerLauncher(image, replace(options, gpus=None), job.arguments, headers=headers)
        launcher.look()
    return launcher


def _usual_gpus() -> str | None:
    """`all` if there may be GPUs, else None. The first start shows whether the engine can provide them."""
    if Machine.here().gpus:
        return ALL
    with closing(connect()) as client, engine_trouble():
        return ALL if "nvidia" in client.info()["Runtimes"] else None
