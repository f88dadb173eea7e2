"""The command line of a job, for records and reports."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from tuner.core.redaction import HIDDEN, argument_without_secrets, without_secrets
from tuner.core.slo import SLO
from tuner.options.groups import as_option
from tuner.options.tune_job import TuneJob

# The values of these may be secret; their names are not.
_SECRET = ("header", "env", "request_parameter")


def command_line(job: TuneJob) -> str:
    """The `tritontune run` command of a job: the options that differ from their defaults, without secrets."""
    words = ["tritontune", "run"]
    if job.repository is not None:
        words.append(str(job.repository))
    for name, field in TuneJob.model_fields.items():
        value = getattr(job, name)
        if name != "repository" and value != field.get_default(call_default_factory=True):
            words += _option(name, value, job)
    return shlex.join(words)


def _option(name: str, value: Any, job: TuneJob) -> Iterator[str]:
    option = as_option(name)
    if isinstance(value, bool):
        yield option if value else f"--no-{option.removeprefix('--')}"
    elif name in _SECRET:
        names = value if isinstance(value, Mapping) else [header for header, _ in value]
        colon = "=" if name == "env" else ":"
        yield from (word for key in names for word in (option, f"{key}{colon}{HIDDEN}"))
    elif name == "triton_arg":
        yield from (f"{option}={argument_without_secrets(argument)}" for argument in value)
    else:
        yield from (word for text in _texts(name, value, job) for word in (option, without_secrets(text)))


def _texts(name: str, value: Any, job: TuneJob) -> Iterator[str]:
    """The value as text, once for each time that the option is given."""
    if isinstance(value, SLO):
        yield from (f"{limit.key}={limit.limit_ms:g}ms" for limit in value.limits)
    elif name == "shape":
        yield from (f"{tensor}:{','.join(map(str, dims))}" for tensor, dims in value.items())
    elif name == "docker_arg":
        yield from (f"{keyword}={_hidden_if_secret(json.dumps(content))}" for keyword, content in value.items())
    elif name == "mount":
        yield from (f"{mount.source}:{mount.target}{'' if mount.writable else ':ro'}" for mount in value)
    elif isinstance(value, tuple):
        yield from map(str, value)
    elif value is None:
        yield "off"
    else:
        yield str(job.model_dump(mode="json", include={name})[name])


def _hidden_if_secret(text: str) -> str:
    return text if without_secrets(text) == text else HIDDEN
