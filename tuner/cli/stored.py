"""Checks of options, for all commands that read a finished run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tuner.core.errors import JobError, nearest
from tuner.core.slo import SLO


def check_models(asked: Iterable[str], models: Sequence[str], run_dir: Path) -> None:
    """Check that a run has studies of these models.

    Raises:
        JobError: a model has no study; the message names the first such model.
    """
    if unknown := [name for name in asked if name not in models]:
        raise JobError(f"--model: {run_dir} holds no study of model {unknown[0]!r}{nearest(unknown[0], models)}")


def one_model(asked: str | None, models: Sequence[str], run_dir: Path) -> str:
    """The requested model, or the only model of the run.

    Raises:
        JobError: the run does not hold the requested model; or none was requested, and it holds no model or several.
    """
    if not models:
        raise JobError(f"{run_dir} holds no study yet: its run has measured nothing")
    check_models([asked] if asked else [], models, run_dir)
    if asked is None and len(models) > 1:
        raise JobError(f"{run_dir} holds several models; choose one with --model: {', '.join(models)}")
    return asked or models[0]


def parsed_slo(slo: tuple[str, ...]) -> SLO:
    """The limits of `--slo`.

    Raises:
        JobError: a limit cannot be read.
    """
    try:
        return SLO.parse(slo)
    except ValueError as error:
        raise JobError(f"--slo: {error}") from None
