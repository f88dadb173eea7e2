"""The option `env`: environment variables of the server."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tuner.core.mark import VARIABLE
from tuner.core.redaction import keep_secret, value_of_variable

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def parse_environment(value: Any) -> dict[str, str | None]:
    """Read texts `NAME=VALUE`, or `NAME` to pass on our own variable; or a mapping as in a job file.

    Raises:
        ValueError: the text is wrong; the message is one line with the fix.
    """
    if isinstance(value, Mapping):
        pairs = [(str(name), content if content is None else _text(content)) for name, content in value.items()]
    else:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, Sequence):
            raise ValueError("write variables as {NAME: VALUE} or NAME=VALUE")  # noqa: TRY004 (pydantic wants ValueError)
        pairs = [_pair(str(text)) for text in texts]
    counts = Counter(name for name, _ in pairs)
    for name, content in pairs:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a variable name; write NAME=VALUE")
        if name == VARIABLE:
            raise ValueError(f"{name!r} is reserved: tritontune recognises its servers by it")
        if counts[name] > 1:
            raise ValueError(f"{name!r} is set twice")
        if content is None and name not in os.environ:
            raise ValueError(f"{name!r} is not set in this environment, so it cannot be passed on; write {name}=VALUE")
    for name, content in pairs:
        value = os.environ.get(name, "") if content is None else content
        if value_of_variable(name, value) != value:
            keep_secret(name, value)
    return dict(pairs)


def assignments(variables: Mapping[str, str]) -> list[str]:
    """Each variable as `NAME=VALUE` for display; `NAME=***` if the value may be secret."""
    return [f"{name}={value_of_variable(name, value)}" for name, value in variables.items()]


def in_words(variables: Mapping[str, str | None]) -> list[str]:
    """The variables in the form of a study's record: `variables A=1 B=***`, or nothing."""
    return [f"variables {' '.join(sorted(assignments(resolved(variables))))}"] if variables else []


def resolved(variables: Mapping[str, str | None]) -> dict[str, str]:
    """The variables with their values; None is replaced by our own value."""
    return {name: os.environ.get(name, "") if value is None else value for name, value in variables.items()}


def _pair(text: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    return name, value if equals else None


def _text(value: Any) -> str:
    """A value as text, as in YAML: `true`, not Python's `True`."""
    if isinstance(value, list | dict):
        raise ValueError(f"{value} must be text; write variables as {{NAME: VALUE}} or NAME=VALUE")  # noqa: TRY004 (pydantic wants ValueError)
    return str(value).lower() if isinstance(value, bool) else str(value)
