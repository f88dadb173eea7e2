"""The lines of a unified diff, for a page that colours them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tuner.config.diff import name_lines

Kind = Literal["file", "hunk", "added", "removed", "same"]


@dataclass(frozen=True)
class DiffLine:
    """A line of a diff, including its mark, and its kind."""

    kind: Kind
    text: str


def diff_lines(diff: str) -> tuple[DiffLine, ...]:
    """The lines of a unified diff of any number of files; empty for an empty diff."""
    lines = diff.split("\n")[:-1]
    names = name_lines(lines)
    return tuple(DiffLine("file" if at in names else _kind(line), line) for at, line in enumerate(lines))


def _kind(line: str) -> Kind:
    return {"+": "added", "-": "removed", "@": "hunk"}.get(line[:1], "same")  # type: ignore[return-value]
