"""Checks names from other sources before they become part of a path."""

from __future__ import annotations

import re

_MOST_BYTES = 255
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


def why_no_folder(name: str) -> str | None:
    """Why a folder cannot have this name, as the end of a sentence; None: the name is valid.

    Check every name from a server, a stored study or a job before it becomes a folder name of ours. A name such as
    `../../x` would lead to a folder elsewhere.
    """
    if not name or name in {".", ".."}:
        return "is not a folder name"
    if "/" in name:
        return "contains a slash"
    if _UNPRINTABLE.search(name):
        return "contains a control character"
    if len(name.encode(errors="surrogateescape")) > _MOST_BYTES:
        return f"is longer than {_MOST_BYTES} bytes"
    return None
