"""Where `tritontune export` writes, and in which form: what goes together, and what does not."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import get_args

from tuner.config.formats import ConfigFormat
from tuner.core.errors import JobError, nearest

_ENDINGS: dict[str, ConfigFormat] = {".pbtxt": "pbtxt", ".json": "json", ".yaml": "configmap", ".yml": "configmap"}


@dataclass(frozen=True)
class Target:
    """Where it goes; neither file nor folder nor in place is stdout.

    Attributes:
        format: How it is written.
        file: The file to write.
        folder: The folder in which each model's own folder is made.
        in_place: Whether the repository's own file is replaced.
    """

    format: ConfigFormat = "pbtxt"
    file: Path | None = None
    folder: Path | None = None
    in_place: bool = False

    @classmethod
    def of(cls, to: Path | None, format_name: str | None, *, in_place: bool) -> Target:
        """Read the options.

        A path that ends as one of the formats does is a file, unless a folder of that name is there. One that ends
        nearly so is a mistake, more likely than a new folder of that name.

        Raises:
            JobError: they contradict each other, or there is no such format.
        """
        if format_name is not None and format_name not in get_args(ConfigFormat):
            raise JobError(f"--format: {format_name!r} is no format{nearest(format_name, get_args(ConfigFormat))}")
        asked: ConfigFormat | None = format_name  # type: ignore[assignment]  # it was just found among them
        if to and in_place:
            raise JobError("--to and --in-place exclude each other")
        if in_place:
            if asked not in {None, "pbtxt"}:
                raise JobError(f"--format {asked}: a model repository holds a config.pbtxt; leave out --in-place")
            return cls(in_place=True)
        if to is None:
            return cls(asked or "pbtxt")
        ending = None if to.is_dir() else _ENDINGS.get(to.suffix.lower())
        if ending is None:
            if asked not in {None, "pbtxt"}:
                usual = next(suffix for suffix, each in _ENDINGS.items() if each == asked)
                raise JobError(f"--format {asked}: a model folder holds a config.pbtxt; name a file, as {to}{usual}")
            if not to.is_dir() and get_close_matches(to.suffix, _ENDINGS, 1):
                raise JobError(f"--to {to}: a file's name ends in one of {', '.join(_ENDINGS)}")
            return cls(folder=to)
        if asked not in {None, ending}:
            raise JobError(f"--to {to}: that is the name of a {ending} file, and --format is {asked}")
        return cls(ending, file=to)

    @property
    def for_many(self) -> bool:
        """Whether several models have room there."""
        return self.in_place or self.folder is not None
