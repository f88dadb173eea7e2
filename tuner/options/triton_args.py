"""Arguments for `tritonserver` that a user adds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tuner.core.redaction import keep_secret_of_argument

# What tritontune sets itself, and could not do its work with otherwise.
_OURS = {
    "allow-grpc": "tritontune speaks to the server over gRPC",
    "grpc-address": "tritontune chooses an address that it can reach",
    "grpc-port": "tritontune chooses a free port",
    "grpc-use-ssl": "tritontune speaks to its own servers without TLS",
    "grpc-use-ssl-mutual": "tritontune speaks to its own servers without TLS",
    "id": "tritontune knows its servers by it",
    "load-model": "tritontune loads the model that it tunes; name others that this one calls with --load-model",
    "log-file": "tritontune reads why a model does not load from what the server writes to its standard output",
    "model-config-name": (
        "Triton would serve configs/NAME.pbtxt, and not the config.pbtxt that tritontune writes for each candidate; "
        "tune a copy of the repository with that file as config.pbtxt"
    ),
    "model-control-mode": "tritontune loads the model that it tunes, and those that this one calls",
    "model-repository": "tritontune serves a copy of the repository that it tunes",
    "model-store": "tritontune serves a copy of the repository that it tunes",
}

# What is true by default, and has to stay so.
_NEEDED = {
    "exit-on-error": "a server that stays without its model is waited for until the launch timeout",
    "log-error": "tritontune reads why a model does not load from the server's log",
    "log-info": "tritontune reads the server's version, and that it gave up, from its log",
    "strict-readiness": "a server would be measured before its model is ready",
}
_TRUE = {"true", "1"}


def parse_triton_args(value: Any) -> tuple[str, ...]:
    """Read arguments for `tritonserver`, each as `--flag=value` or `--flag`.

    Raises:
        ValueError: one line that says what would be right.
    """
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, Sequence):
        raise ValueError("write arguments as [--flag=value]")  # noqa: TRY004 (pydantic wants ValueError)
    for text in map(str, texts):
        name, _, given = text.removeprefix("--").partition("=")
        if not text.startswith("--") or not name or text != text.strip() or " " in name:
            raise ValueError(f"{text!r} is not an argument of tritonserver; write it as --triton-arg=--flag=value")
        if name in _OURS:
            raise ValueError(f"--{name}: {_OURS[name]}")
        if name in _NEEDED and given.lower() not in _TRUE:
            raise ValueError(f"--{name} must stay true, got {given!r}: {_NEEDED[name]}")
        if whole := next((flag for flag in (*_OURS, *_NEEDED) if flag.startswith(name) and flag != name), ""):
            # tritonserver takes the beginning of a name for the name.
            raise ValueError(f"--{name}: abbreviates --{whole}; write the whole name")
        if text.startswith("--backend-config=python,shm-region-prefix-name="):
            raise ValueError(f"{text}: tritontune knows the shared memory of its servers by it")
    arguments = tuple(map(str, texts))
    for argument in arguments:
        keep_secret_of_argument(argument)
    return arguments
