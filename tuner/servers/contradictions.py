"""Server options that cannot be combined, on any machine."""

from __future__ import annotations

from tuner.core.errors import JobError
from tuner.options.groups import ServerOptions, as_option

FOR_DOCKER = ("image", "shm_size", "memory", "mount", "network", "user", "docker_arg")
"""Options that only Docker supports."""


def asking_for_docker(job: ServerOptions) -> list[str]:
    """The given options that only Docker supports."""
    return [name for name in FOR_DOCKER if getattr(job, name)]


def refuse_contradictions(job: ServerOptions) -> None:
    """Check that options of different kinds of servers are not combined.

    Raises:
        JobError: options of different kinds of servers are combined.
    """
    for_docker = asking_for_docker(job)
    if job.server == "process" and for_docker:
        raise JobError(f"{as_option(for_docker[0])} needs Docker; leave it out, or use --server docker")
    if job.triton_path is not None and for_docker:
        raise JobError(f"{as_option(for_docker[0])} and --triton-path cannot be combined")
    if job.triton_path is not None and job.server == "docker":
        raise JobError("--triton-path is for a Triton on this machine; leave it out, or use --server process")
