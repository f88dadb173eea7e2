"""Addresses that contain secrets: read from environment variables, and never shown in full."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def expanded(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Replace each `${NAME}` in a text by that environment variable.

    Raises:
        ValueError: a variable is not set or empty.
    """
    if missing := [name for name in _VARIABLE.findall(text) if not environment.get(name)]:
        raise ValueError(f"environment variable {missing[0]} is not set or empty")
    return _VARIABLE.sub(lambda match: environment[match[1]], text)


def shown(url: str) -> str:
    """The address without its path, query and user: `https://hooks.slack.com/...`."""
    parts = urlsplit(url)
    rest = "/..." if parts.path.strip("/") or parts.query else ""
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{rest}"
