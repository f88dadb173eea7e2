"""Addresses that hold secrets: taken from the environment, and never shown whole."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def expanded(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """A text with each `${NAME}` in it replaced by that environment variable.

    Raises:
        ValueError: one of them is not set.
    """
    if missing := [name for name in _VARIABLE.findall(text) if not environment.get(name)]:
        raise ValueError(f"environment variable {missing[0]} is not set or empty")
    return _VARIABLE.sub(lambda found: environment[found[1]], text)


def shown(url: str) -> str:
    """As much of an address as anyone may read: `https://hooks.slack.com/...`."""
    parts = urlsplit(url)
    rest = "/..." if parts.path.strip("/") or parts.query else ""
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{rest}"
