"""Unified diffs of configs."""

from __future__ import annotations

import difflib

from tuner.config.config import ModelConfig


def unified_diff(before: ModelConfig, after: ModelConfig) -> str:
    """The unified diff of two configs, for users and `patch`; empty: they are equal.

    File labels are the sources of the configs; equal sources are marked `before` and `after`.
    """
    notes = ("before", "after") if before.source == after.source else ("", "")
    lines = difflib.unified_diff(_lines(before), _lines(after), before.source, after.source, *notes)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _lines(config: ModelConfig) -> list[str]:
    # Not splitlines(): to text format, and to patch, only \n ends a line.
    lines = [f"{line}\n" for line in config.text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]
