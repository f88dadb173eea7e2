"""Unified diffs of configs and patches."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from tuner.config.config import ModelConfig
from tuner.config.patch import Patch
from tuner.config.repository import CONFIG


def unified_diff(before: ModelConfig, after: ModelConfig) -> str:
    """The unified diff of two configs, for users and `patch`; empty: they are equal.

    File labels are the sources of the configs; equal sources are marked `before` and `after`.
    """
    return _diff(before.text, after.text, before.source, after.source)


def patch_diff(before: Patch, after: Patch, model: str) -> str:
    """The unified diffs of all files of two patches, and a comment line for each changed argument and variable.

    `patch` reads the diffs, and ignores the comments.

    Args:
        before: A patch.
        after: A patch of the same study.
        model: The tuned model.
    """
    main = f"{model}/{CONFIG}"
    old, new = {main: before.config, **before.files}, {main: after.config, **after.files}
    changed = after.changed_from(before)
    return "".join(
        [
            *(_diff(old.get(path, ""), text, path, path) for path, text in new.items()),
            *_settings("argument", before.server_args, changed.server_args),
            *_settings("variable", before.env, changed.env),
        ]
    )


def name_lines(lines: Sequence[str]) -> set[int]:
    """The numbers of the lines of a unified diff that name files, from 0."""
    marks = ("--- ", "+++ ", "@@ ")
    begins = (at for at in range(len(lines) - 2) if all(map(str.startswith, lines[at : at + 3], marks)))
    return {at + offset for at in begins for offset in (0, 1)}


def _settings(kind: str, before: Mapping[str, str | None], changed: Mapping[str, str | None]) -> list[str]:
    return [f"# {kind} {name}: {_shown(before.get(name))} -> {_shown(value)}\n" for name, value in changed.items()]


def _shown(value: str | None) -> str:
    return "not set" if value is None else value or "set"


def _diff(before: str, after: str, from_name: str, to_name: str) -> str:
    notes = ("before", "after") if from_name == to_name else ("", "")
    lines = difflib.unified_diff(_lines(before), _lines(after), from_name, to_name, *notes)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _lines(text: str) -> list[str]:
    # Not splitlines(): to text format, and to patch, only \n ends a line.
    lines = [f"{line}\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]
