"""Triton's command line arguments, the same for every launcher."""

from __future__ import annotations

from pathlib import PurePath

from tuner.core.mark import Mark
from tuner.servers.protocols import Launch
from tuner.servers.python_models import is_complete, may_call

BARE = ("--model-control-mode=explicit", "--allow-http=false", "--allow-grpc=false", "--allow-metrics=false")
"""Arguments for a start without a model, which only reports Triton's version."""


def triton_arguments(request: Launch, *, mark: Mark, repository: PurePath, grpc_port: int) -> tuple[str, ...]:
    """The arguments after the name of the program.

    HTTP and metrics are off: all requests use gRPC, and Triton's polling of the GPU costs CPU time.

    Args:
        request: The launch.
        mark: The server's mark, used as its `--id`, which distinguishes it from servers of other runs.
        repository: The path of the repository for the server.
        grpc_port: The port that the server listens on.
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
    """Whether the configs of all models that may be loaded are complete."""
    model = request.repository / request.model
    if not is_complete(model):
        return False
    if may_call(model):
        return all(is_complete(other) for other in request.repository.iterdir() if other.is_dir())
    return all(is_complete(request.repository / name) for name in request.also)
