"""The arguments with which every launcher starts Triton, so that they all start the same server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from tuner.servers.mark import Mark
from tuner.servers.protocols import Launch
from tuner.servers.python_models import is_complete

BARE = ("--model-control-mode=explicit", "--allow-http=false", "--allow-grpc=false", "--allow-metrics=false")
"""For a server that is to say which version it is, and no more."""

# What tritontune sets itself, and could not do its work with otherwise.
_OURS = {
    "allow-grpc": "tritontune speaks to the server over gRPC",
    "grpc-address": "tritontune chooses an address that it can reach",
    "grpc-port": "tritontune chooses a free port",
    "grpc-use-ssl": "tritontune speaks to its own servers without TLS",
    "grpc-use-ssl-mutual": "tritontune speaks to its own servers without TLS",
    "id": "tritontune knows its servers by it",
    "load-model": "tritontune loads the model that it tunes",
    "model-control-mode": "tritontune loads the model that it tunes, and no other",
    "model-repository": "tritontune serves a copy of the repository that it tunes",
    "model-store": "tritontune serves a copy of the repository that it tunes",
}


def parse_triton_args(value: Any) -> tuple[str, ...]:
    """Read arguments for `tritonserver`, each as `--flag=value` or `--flag`.

    Raises:
        ValueError: one line that says what would be right.
    """
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, Sequence):
        raise ValueError("arguments are written as [--flag=value]")  # noqa: TRY004 (pydantic wants ValueError)
    for text in map(str, texts):
        name = text.removeprefix("--").partition("=")[0]
        if not text.startswith("--") or not name or text != text.strip() or " " in name:
            raise ValueError(f"{text!r} is no argument of tritonserver; write it as --triton-arg=--flag=value")
        if name in _OURS:
            raise ValueError(f"--{name}: {_OURS[name]}")
        if text.startswith("--backend-config=python,shm-region-prefix-name="):
            raise ValueError(f"{text}: tritontune knows the shared memory of its servers by it")
    return tuple(map(str, texts))


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
        f"--load-model={request.model}",
        f"--grpc-port={grpc_port}",
        "--allow-http=false",
        "--allow-metrics=false",
        *(["--disable-auto-complete-config"] if is_complete(request.repository / request.model) else []),
    )
