"""The option `mount`: folders, files and volumes for a container, beside the repository."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_VOLUME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


@dataclass(frozen=True)
class UserMount:
    """A folder, a file or a Docker volume to mount.

    Attributes:
        kind: `bind` for a path, `volume` for a volume.
        source: The absolute path, or the volume's name.
        target: The absolute path in the container.
        writable: Whether the container may write to it.
    """

    kind: Literal["bind", "volume"]
    source: str
    target: str
    writable: bool

    def __str__(self) -> str:
        """The value of `docker run --mount`, in CSV."""
        fields = [f"type={self.kind}", f"source={self.source}", f"target={self.target}"]
        return ",".join(_csv(field) for field in [*fields, *([] if self.writable else ["readonly"])])


def parse_mount(text: str) -> UserMount:
    """Read `SRC:DST` or `SRC:DST:ro`; a `SRC` with a slash or a leading dot is a path, any other a volume's name.

    Raises:
        ValueError: the text is wrong; the message is one line with the fix.
    """
    source, *rest = str(text).split(":")
    target, mode = (rest[0] if rest else ""), (rest[1] if len(rest) > 1 else "rw")
    if not source or not target or len(rest) > 2 or mode not in {"ro", "rw"}:
        raise ValueError(f"{text!r} is not a mount; write it as SRC:DST or SRC:DST:ro")
    if not target.startswith("/"):
        raise ValueError(f"{text!r}: {target} is not an absolute path in the container")
    if "/" in source or source.startswith((".", "~")):
        return UserMount("bind", str(Path(source).expanduser().absolute()), target, mode == "rw")
    if not _VOLUME.fullmatch(source):
        raise ValueError(f"{text!r}: {source} is not a volume name; write a folder with a slash, such as ./{source}")
    return UserMount("volume", source, target, mode == "rw")


def _csv(field: str) -> str:
    quoted = field.replace('"', '""')
    return f'"{quoted}"' if set(field) & set(',"') else field
