"""The option `triton_arg`: additional arguments for `tritonserver`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tuner.core.redaction import keep_secret_of_argument

# Arguments that tritontune sets itself, with the reason.
_OURS = {
    "allow-grpc": "tritontune uses the server's gRPC endpoint",
    "grpc-address": "tritontune chooses an address that it can reach",
    "grpc-port": "tritontune chooses a free port",
    "grpc-use-ssl": "tritontune uses its own servers without TLS",
    "grpc-use-ssl-mutual": "tritontune uses its own servers without TLS",
    "id": "tritontune recognises its servers by it",
    "load-model": "tritontune loads the tuned model; for models that it calls, use --load-model",
    "log-file": "tritontune reads the server's log from its standard output",
    "model-config-name": (
        "Triton would serve configs/NAME.pbtxt instead of the candidate's config.pbtxt; "
        "tune a copy of the repository that has this file as config.pbtxt"
    ),
    "model-control-mode": "tritontune loads the tuned model and the models that it calls",
    "model-repository": "tritontune serves a copy of the tuned repository",
    "model-store": "tritontune serves a copy of the tuned repository",
}

# Arguments that are true by default and must stay true, with the reason.
_NEEDED = {
    "exit-on-error": "tritontune would wait for a server without its model until the launch timeout",
    "log-error": "tritontune reads why a model does not load from the server's log",
    "log-info": "tritontune reads the server's version and its end from its log",
    "strict-readiness": "tritontune would measure the server before its model is ready",
}
_TRUE = {"true", "1"}


# Source: `--host-policy=<policy_name>,<setting>=<value>` of tritonserver has these two settings.
_POLICY = re.compile(r"[^,=\s]+,(numa-node=[0-9]+|cpu-cores=[0-9]+-[0-9]+(,[0-9]+-[0-9]+)*)")


def parse_host_policies(value: Any) -> tuple[str, ...]:
    """Read host policies, each as `NAME,numa-node=N` or `NAME,cpu-cores=A-B`.

    Raises:
        ValueError: the text is wrong; the message is one line with the fix.
    """
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise ValueError("write host policies as [NAME,numa-node=N]")
    if wrong := next((text for text in texts if not _POLICY.fullmatch(text)), None):
        raise ValueError(f"{wrong!r} is not a host policy; write NAME,numa-node=N or NAME,cpu-cores=A-B")
    return tuple(texts)


def parse_triton_args(value: Any) -> tuple[str, ...]:
    """Read arguments for `tritonserver`, each as `--flag=value` or `--flag`.

    Raises:
        ValueError: the text is wrong; the message is one line with the fix.
    """
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, Sequence):
        raise ValueError("write arguments as [--flag=value]")  # noqa: TRY004 (pydantic wants ValueError)
    for text in map(str, texts):
        name, _, given = text.removeprefix("--").partition("=")
        if not text.startswith("--") or not name or text != text.strip() or " " in name:
            raise ValueError(f"{text!r} is not an argument of tritonserver; write it as --triton-arg=--flag=value")
        if name in _OURS:
            raise ValueError(f"--{name} cannot be set: {_OURS[name]}")
        if name in _NEEDED and given.lower() not in _TRUE:
            raise ValueError(f"--{name} must stay true, got {given!r}: {_NEEDED[name]}")
        if whole := next((flag for flag in (*_OURS, *_NEEDED) if flag.startswith(name) and flag != name), ""):
            # tritonserver accepts abbreviated names.
            raise ValueError(f"--{name} abbreviates --{whole}; write the whole name")
        if text.startswith("--backend-config=python,shm-region-prefix-name="):
            raise ValueError(f"{text} cannot be set: tritontune recognises the shared memory of its servers by it")
    arguments = tuple(map(str, texts))
    for argument in arguments:
        keep_secret_of_argument(argument)
    return arguments
