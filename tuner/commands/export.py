"""`tritontune export`: the best config of a finished run, to where it is needed."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import click

from tuner.commands.stored import check_models, parsed_slo
from tuner.errors import JobError, SLOError
from tuner.models.deploy import replace_config
from tuner.models.repository import ModelFolder, ModelRepository
from tuner.report.files import config_with_provenance
from tuner.run_folder import RunFolder
from tuner.search.recommend import recommend
from tuner.search.study import Study


def export(run_dir: Path, models: tuple[str, ...], slo: tuple[str, ...], to: Path | None, *, in_place: bool) -> None:
    """Export the best config of each model.

    Raises:
        JobError: there is no such run or model, or the options contradict each other.
        SLOError: no candidate holds the SLO.
        ConfigError: the repository's config.pbtxt is no longer the one that was tuned.
    """
    run = RunFolder.existing(run_dir)
    if to and in_place:
        raise JobError("--to and --in-place exclude each other")
    known = Study.models(run.database)
    check_models(models, known, run_dir)
    chosen = models or known
    single = to is None or to.suffix == ".pbtxt"
    if single and not in_place and len(chosen) > 1:
        raise JobError(f"{run_dir} holds several models; choose one with --model: {', '.join(chosen)}")
    texts = {name: _best_config(run, name, slo) for name in chosen}
    for name, text in texts.items():
        if in_place:
            _replace(Study.load(run.database, name), text)
        elif to is None:
            click.echo(text, nl=False)
        elif single:
            _write_file(to, text)
        else:
            _write_folder(Study.load(run.database, name), to / name, text)


def _best_config(run: RunFolder, model: str, slo: tuple[str, ...]) -> str:
    study = Study.load(run.database, model)
    if not study.trials:
        raise JobError(f"{run.path}: the study of {model!r} has no finished trial")
    asked = study.identity
    found = recommend(study.trials, parsed_slo(slo) if slo else asked.slo, study.verified, asked.max_gpu_memory)
    if found.best is None:
        raise SLOError(f"no measured candidate of {model} holds {found.slo}")
    return config_with_provenance(study, found.best, found.gain, found.slo)


def _replace(study: Study, text: str) -> None:
    model = _folder_of(study)
    tuned = study.identity.config
    path = model.path / "config.pbtxt"
    expected = hashlib.sha256(tuned.encode()).hexdigest() if tuned else None
    backup = replace_config(path, text, expected_sha256=expected)
    click.echo(f"{path}: replaced" + (f"; the one before is {backup.name}" if backup else ""), err=True)


def _folder_of(study: Study) -> ModelFolder:
    """The user's own folder of the model."""
    repository, model = study.identity.repository, study.identity.model
    if "://" in repository:
        raise JobError(f"{model} was tuned at {repository} and has no repository here; export --to a FILE.pbtxt")
    return ModelRepository.open(Path(repository)).model(model)


def _write_file(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise JobError(f"--to: {path}: cannot be written: {error.strerror}") from None
    click.echo(f"{path}: written", err=True)


def _write_folder(study: Study, folder: Path, text: str) -> None:
    """A whole model folder, ready to be served: the model's own files, and the config."""
    model = _folder_of(study)
    if folder.exists():
        raise JobError(f"--to: {folder} is there already")
    try:
        shutil.copytree(model.path, folder, ignore=shutil.ignore_patterns("__pycache__"))
    except (OSError, shutil.Error) as error:
        raise JobError(f"--to: {folder}: cannot be written: {error}") from None
    _write_file(folder / "config.pbtxt", text)
