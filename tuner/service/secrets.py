"""Secrets in jobs: references `${NAME}`, which are replaced in the job's process only.

A reference may stand in the values of `header`, `env` and `request_parameter`. NAME is one that the config file of the
service allows (`secrets`), and its value an environment variable of the service, or a file of `secrets_folder`.
A job is stored, shown and logged with its references.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tuner.core.errors import JobError
from tuner.core.redaction import is_secret_name
from tuner.nightly.secrets import expanded
from tuner.service.refusals import ForbiddenError

POSITIONS = ("header", "env", "request_parameter")
"""Options whose values may have references."""

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_MOST_BYTES = 64 * 1024


class Secrets:
    """The secrets that jobs may refer to.

    Args:
        allowed: Patterns of names.
        environment: The environment of the service.
        folder: Folder with a file for each secret; None: there is none.
    """

    def __init__(self, allowed: tuple[str, ...], environment: Mapping[str, str], folder: Path | None = None) -> None:
        self._allowed = allowed
        self._environment = environment
        self._folder = folder

    def may(self, name: str) -> bool:
        """Whether jobs may refer to a name."""
        return any(fnmatchcase(name, pattern) for pattern in self._allowed)

    def value(self, name: str) -> str | None:
        """The value of a secret; None: it is not allowed, unknown or empty."""
        if not self.may(name):
            return None
        if self._folder is not None:
            try:
                with (self._folder / name).open("rb") as file:
                    return file.read(_MOST_BYTES).decode().rstrip("\r\n") or None
            except (OSError, UnicodeDecodeError):
                pass
        return self._environment.get(name) or None

    def values(self, options: Mapping[str, Any]) -> dict[str, str]:
        """The values of all references of a job, by name: what the job's process needs in its environment."""
        found = {name: self.value(name) for name in references(options)}
        return {name: value for name, value in found.items() if value is not None}

    def check(self, options: Mapping[str, Any]) -> None:
        """Check the references of a job, and that secrets are references.

        Raises:
            JobError: a plain secret, an unknown name, or a reference where none may stand; the message has the fix.
            ForbiddenError: the config file does not allow the name.
        """
        for option, value in options.items():
            names = set(_names_in(value))
            if names and option not in POSITIONS and option != "string_data":
                raise JobError(
                    f"{option}: ${{{min(names)}}} has no meaning here; secrets may stand in {', '.join(POSITIONS)}"
                )
        for name in sorted(references(options)):
            if not self.may(name):
                raise ForbiddenError(
                    f"the secret ${{{name}}} is not allowed; to allow it, add {name} to `secrets` in the service's "
                    "config file"
                )
            if self.value(name) is None:
                raise JobError(
                    f"the secret ${{{name}}} is unknown: neither an environment variable of the service nor a file of "
                    "`secrets_folder`"
                )
        for option in POSITIONS:
            for name, value in _pairs(options.get(option)):
                if is_secret_name(name) and value and not _REFERENCE.search(value):
                    raise JobError(
                        f"{option}: the value of {name} would be stored; write a reference, such as {name}: "
                        "${NAME}, with NAME in the environment of the service"
                    )


def references(options: Mapping[str, Any]) -> set[str]:
    """The names that a job refers to."""
    return {name for option in POSITIONS for name in _names_in(options.get(option))}


def with_secrets(options: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """The options of a job with the values of its references, for the job's process.

    Args:
        options: The options with references.
        environment: The values by name.

    Raises:
        JobError: a value is missing.
    """
    try:
        return {name: _expanded(value, environment) if name in POSITIONS else value for name, value in options.items()}
    except ValueError as error:
        raise JobError(str(error)) from None


def _expanded(value: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return expanded(value, environment)
    if isinstance(value, Mapping):
        return {name: _expanded(content, environment) for name, content in value.items()}
    return [_expanded(part, environment) for part in value] if isinstance(value, list | tuple) else value


def _names_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from _REFERENCE.findall(value)
    elif isinstance(value, Mapping):
        for name, content in value.items():
            yield from _names_in(name)
            yield from _names_in(content)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _names_in(part)


def _pairs(value: Any) -> Iterator[tuple[str, str]]:
    """Names with their values, from a mapping, pairs, or texts `NAME:VALUE` and `NAME=VALUE`."""
    if isinstance(value, Mapping):
        yield from ((str(name).strip(), "" if content is None else str(content)) for name, content in value.items())
        return
    for entry in [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else ():
        if isinstance(entry, list | tuple):
            parts = [str(part) for part in entry]
            name, text = (parts[0], ":".join(parts[1:])) if parts else ("", "")
        else:
            name, _, text = re.sub("[:=]", "\0", str(entry), count=1).partition("\0")
        yield name.strip(), text.strip()
