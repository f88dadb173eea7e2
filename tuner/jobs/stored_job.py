"""Stores the options of a run in its folder, so that `--resume` needs none of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tuner.core.atomic_file import write_atomically
from tuner.core.errors import JobError
from tuner.core.redaction import without_secrets
from tuner.core.yaml_files import load_yaml
from tuner.options.groups import MADE_UP, LoadOptions, as_option
from tuner.options.placement import FOR_RAY
from tuner.options.tune_job import TuneJob
from tuner.space.spec import shipped_spaces

_HEAD = "# The options of this run. `tritontune run --resume --out` with this folder continues it.\n"
# Options that may be secret are not stored. Of `--env` without a value, the name is stored.
_SECRET = "header"  # noqa: S105 (the name of an option)
_ENVIRONMENT = "env"
# These may contain secrets, such as `--http-restricted-api=inference:key=SECRET`, or the user of a URL.
_PERHAPS_SECRET = {"triton_arg", "docker_arg", "request_parameter", "metrics_url"}
# With another value of one of these, it would be another study. Others may change. The study itself checks the Triton
# version.
_FIXED = {
    "repository",
    "url",
    "slo",
    "maximize",
    "minimize",
    "rate",
    "space",
    "allow_numerics",
    "host_policy",
    "max_gpu_memory",
    "output_tolerance",
} | (LoadOptions.model_fields.keys() - {"header", "connections", "processes"})

_PATHS = {"repository", "triton_path", "warm_start", "tls_ca", "tls_cert", "tls_key", "intervals", "timestamps"}


def store_job(job: TuneJob, file: Path) -> None:
    """Store a job as a job file, without options that may be secret.

    Raises:
        JobError: the file cannot be written.
    """
    options = job.model_dump(mode="json", exclude_defaults=True, exclude={_SECRET, _ENVIRONMENT})
    inherited = {name: None for name, value in job.env.items() if value is None}
    if inherited:
        options[_ENVIRONMENT] = inherited
    left_out = [_SECRET] * bool(job.header) + [f"env {name}" for name in job.env if name not in inherited]
    for name in _PERHAPS_SECRET & options.keys():
        text = yaml.safe_dump(options[name])
        if without_secrets(text) != text:
            left_out.append(name.replace("_", "-"))
            del options[name]
    options = with_absolute_paths(options)
    text = yaml.safe_dump({"schema": 1, "options": options, "left_out": left_out}, sort_keys=False, allow_unicode=True)
    try:
        write_atomically(file, _HEAD + text)
    except OSError as error:
        raise JobError(f"{file}: cannot be written: {error.strerror}") from None


def with_absolute_paths(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a job, with their paths from the root, so that they mean the same in every folder."""
    texts = {name: value for name, value in options.items() if isinstance(value, str)}
    paths = _PATHS & texts.keys() | set(_words_or_files(texts))
    return {name: str(Path(value).absolute()) if name in paths else value for name, value in options.items()}


def resumed_job(file: Path, given: Mapping[str, Any]) -> TuneJob:
    """The job of a resumed run: the stored options, overridden by given ones.

    Args:
        file: The stored job; if it does not exist (runs of early versions), all options must be given.
        given: Options by name, as text.

    Raises:
        JobError: a given option would make it another study, an option that was not stored is missing, or the file is
            not a stored job.
    """
    if not file.exists():
        return TuneJob.make(given)
    try:
        stored = load_yaml(file.read_text(encoding="utf-8"))
        options, left_out = dict(stored["options"]), list(stored["left_out"])
    except (OSError, UnicodeDecodeError, KeyError, TypeError, ValueError):
        raise JobError(f"{file}: not a stored job; remove it and give all options again") from None
    if given.get("executor", "ray") != "ray":
        options = {name: value for name, value in options.items() if name not in FOR_RAY}
    needed = {name: name.partition(" ")[0].replace("-", "_") for name in left_out}
    for name, option in needed.items():
        if option not in given:
            raise JobError(f"--{name}: give it again: the run did not store it, since it may be secret")
    begun = TuneJob.make(options, source=str(file))
    asked = TuneJob.make({**options, **given})
    for name in given.keys() - needed.values():
        if name in _FIXED and _plain(asked, name) != _plain(begun, name):
            option = "MODEL_REPO" if name == "repository" else as_option(name)
            was, now = _shown(begun, name), _shown(asked, name)
            raise JobError(f"{option}: this run uses {was}, not {now}; omit the option or choose another --out")
    return asked


def _words_or_files(options: Mapping[str, Any]) -> list[str]:
    """The options that may be a keyword or a file, and name a file."""
    words = {"space": shipped_spaces(), "input_data": MADE_UP}
    return [name for name, keywords in words.items() if name in options and options[name] not in keywords]


def _plain(job: TuneJob, name: str) -> Any:
    value = getattr(job, name)
    if isinstance(value, Path) or name in _words_or_files({name: value}):
        return Path(value).resolve()
    return value


def _shown(job: TuneJob, name: str) -> str:
    """An option's value for a message."""
    value = getattr(job, name)
    if value is None or value == ():
        return "none"
    return str(value) if isinstance(value, (str, int, float, Path)) or name == "slo" else repr(value)
