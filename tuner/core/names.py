"""Checks names from elsewhere before they become part of a path."""

from __future__ import annotations

import re

_MOST_BYTES = 255
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


def why_no_folder(name: str) -> str | None:
    """Why a folder cannot have this name, as the end of a sentence; None: it can.

    To be asked of every name that comes from elsewhere, from a server, a stored study or a job, and names a folder of
    ours: one such as `../../x` would name a folder of somebody else's.
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
