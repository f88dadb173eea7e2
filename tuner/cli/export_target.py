"""Where `tritontune export` writes, and in which format."""

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
    """Where to write; stdout when there is no file, no folder, and `in_place` is false.

    Attributes:
        format: Format of the config.
        file: File to write.
        folder: Folder in which a folder for each model is made.
        in_place: Whether the config.pbtxt in the repository is replaced.
    """

    format: ConfigFormat = "pbtxt"
    file: Path | None = None
    folder: Path | None = None
    in_place: bool = False

    @classmethod
    def of(cls, to: Path | None, format_name: str | None, *, in_place: bool) -> Target:
        """The target that the options ask for.

        A path with the suffix of a format is a file, unless such a folder exists. A path with a similar suffix is
        refused: a typing mistake is more likely than a new folder of that name.

        Raises:
            JobError: the options contradict each other, or the format is unknown.
        """
        if format_name is not None and format_name not in get_args(ConfigFormat):
            raise JobError(f"--format: unknown format {format_name!r}{nearest(format_name, get_args(ConfigFormat))}")
        asked: ConfigFormat | None = format_name  # type: ignore[assignment]  # it was just found among them
        if to and in_place:
            raise JobError("use either --to or --in-place, not both")
        if in_place:
            if asked not in {None, "pbtxt"}:
                raise JobError(f"--format {asked}: cannot be used with --in-place, which writes a config.pbtxt")
            return cls(in_place=True)
        if to is None:
            return cls(asked or "pbtxt")
        ending = None if to.is_dir() else _ENDINGS.get(to.suffix.lower())
        if ending is None:
            if asked not in {None, "pbtxt"}:
                usual = next(suffix for suffix, config_format in _ENDINGS.items() if config_format == asked)
                raise JobError(
                    f"--format {asked}: needs --to a file, such as {to}{usual}; a model folder holds a config.pbtxt"
                )
            if not to.is_dir() and get_close_matches(to.suffix, _ENDINGS, 1):
                raise JobError(f"--to {to}: the suffix of a file must be one of {', '.join(_ENDINGS)}")
            return cls(folder=to)
        if asked not in {None, ending}:
            raise JobError(f"--to {to}: its suffix means {ending}, but --format is {asked}")
        return cls(ending, file=to)

    @property
    def for_many(self) -> bool:
        """Whether several models can be written to it."""
        return self.in_place or self.folder is not None
