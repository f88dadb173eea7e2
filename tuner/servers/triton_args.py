"""Arguments for `tritonserver` that a user adds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
