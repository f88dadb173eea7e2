"""Which way to get a Triton."""

from __future__ import annotations

from collections.abc import Callable

from tuner.errors import JobError
from tuner.options import ServerOptions
from tuner.servers.installation import find_triton
from tuner.servers.process import ProcessLauncher
from tuner.servers.protocols import Launcher


def choose_launcher(job: ServerOptions, note: Callable[[str], None]) -> Launcher:
    """The launcher that the job asks for; `auto` takes Docker where it can be used with the job's image.

    Args:
        job: What was asked.
        note: Is told what was chosen where that is not what was asked for.

    Raises:
        JobError: what was asked for cannot be used; one line says why.
    """
    if job.server == "docker" and job.image is None:
        raise JobError("--server docker needs --image, the Triton image to run")
    if job.server == "process" and job.image is not None:
        raise JobError("--image is for Docker; leave it out, or choose --server docker")
    if job.image is not None and job.triton_path is not None:
        raise JobError("--image and --triton-path exclude each other")
    if job.image is None:
        return ProcessLauncher(find_triton(job.triton_path))
    from tuner.servers.docker import DockerLauncher, engine_problem  # noqa: PLC0415 (a quarter of a second)

    if problem := engine_problem(job.image):
        if job.server == "docker":
            raise JobError(f"--server docker: {problem}")
        note(f"a local process instead of --image {job.image}: {problem}")
        return ProcessLauncher(find_triton(job.triton_path))
    return DockerLauncher(job.image)
