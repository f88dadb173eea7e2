"""The arguments with which every launcher starts Triton, so that they all start the same server."""

from __future__ import annotations

from pathlib import PurePath

from tuner.core.mark import Mark
from tuner.servers.protocols import Launch
from tuner.servers.python_models import is_complete, may_call

BARE = ("--model-control-mode=explicit", "--allow-http=false", "--allow-grpc=false", "--allow-metrics=false")
"""For a server that is to say which version it is, and no more."""


def triton_arguments(request: Launch, *, mark: Mark, repository: PurePath, grpc_port: int) -> tuple[str, ...]:
    """What follows the name of the program.

    HTTP and metrics are off: everything is asked over gRPC, and Triton's polling of the GPU costs time on the CPU.

    Args:
        request: What to start.
        mark: Becomes the server's id, by which it is told from the server of another run.
        repository: Where the server sees the repository.
        grpc_port: On which it listens.
    """
    return (
        f"--id={mark}",
        f"--model-repository={repository}",
        "--model-control-mode=explicit",
        *(f"--load-model={name}" for name in (request.model, *request.also)),
        f"--grpc-port={grpc_port}",
        "--allow-http=false",
        "--allow-metrics=false",
        *(["--disable-auto-complete-config"] if _are_complete(request) else []),
    )


def _are_complete(request: Launch) -> bool:
    """Whether no model that may be loaded leaves anything for Triton to complete."""
    model = request.repository / request.model
    if not is_complete(model):
        return False
    if may_call(model):
        return all(is_complete(other) for other in request.repository.iterdir() if other.is_dir())
    return all(is_complete(request.repository / name) for name in request.also)
