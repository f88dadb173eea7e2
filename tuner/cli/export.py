"""`tritontune export`: writes the best config of a run to a file, a folder, or the model repository."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from tuner.cli.export_target import Target
from tuner.cli.output_file import check_output
from tuner.cli.stored import check_models, parsed_slo
from tuner.config.config import ModelConfig
from tuner.config.deploy import Replacement, finish_replacing, replace_files, sha256_of
from tuner.config.formats import config_json, config_map
from tuner.config.model_copy import copy_model
from tuner.config.patch import Patch
from tuner.config.repository import CONFIG, ModelFolder, ModelRepository
from tuner.core.atomic_file import write_atomically
from tuner.core.errors import ConfigError, JobError, SLOError, TritontuneError
from tuner.results.picked import picked_in_words
from tuner.results.result_files import changes_of, config_with_provenance, without_provenance
from tuner.results.warmed import warmed, what_it_saves, why_not_warmed
from tuner.results.words import slo_in_words, warm_up_in_words
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study


@dataclass(frozen=True)
class _Export:
    """The export of one model.

    Attributes:
        study: The study with all trials.
        patch: The files and settings to deploy that differ from the user's; its config has a comment on its provenance.
        words: The chosen point, and how certain its numbers are, in words.
        warm_up: What a `model_warmup` saves, or why there is none, in words; empty: nothing to say.
    """

    study: Study
    patch: Patch
    words: str
    warm_up: str = ""

    @property
    def model(self) -> str:
        """The name of the model."""
        return self.study.identity.model

    @property
    def repository(self) -> Path:
        """The folder of the user's repository.

        Raises:
            JobError: the model has no repository on this machine.
        """
        repository = self.study.identity.repository
        if "://" in repository:
            raise JobError(
                f"model {self.model!r} was tuned at {repository} and has no repository here; use --to FILE.pbtxt"
            )
        return Path(repository)

    def folder(self, model: str = "") -> ModelFolder:
        """The folder of a model in the user's repository; by default the tuned model's."""
        return ModelRepository.open(self.repository).model(model or self.model)

    @property
    def files(self) -> dict[str, str]:
        """The texts of all files, by path in the repository."""
        return {f"{self.model}/{CONFIG}": self.patch.config, **self.patch.files}

    @property
    def tuned(self) -> dict[str, str]:
        """The texts of these files when they were tuned; empty for one that did not exist."""
        return {f"{self.model}/{CONFIG}": self.study.identity.config, **self.study.trials[0].others.files}


def export(
    run_dir: Path,
    models: tuple[str, ...],
    slo: tuple[str, ...],
    target: Target,
    *,
    force: bool = False,
    with_warmup: bool = False,
) -> None:
    """Export the best config of each model that the run recommends for this SLO; nothing is measured.

    Without names, models without a best config are skipped, and an error at the end names them.

    Args:
        run_dir: Folder of the run.
        models: Names of the models; empty: all.
        slo: Limits as in `--slo`; empty: the limits of the run.
        target: Where to write.
        force: Whether a file of the target may be replaced.
        with_warmup: Whether to add the `model_warmup` that the run measured.

    Raises:
        JobError: there is no such run or model, or the target cannot be written.
        SLOError: no candidate holds the SLO.
        ConfigError: the repository's config.pbtxt differs from the tuned one.
    """
    check_output(target.file, option="--to", force=force)
    run = RunFolder.existing(run_dir)
    stored = Study.models(run.database)
    if not stored:
        raise JobError(f"{run_dir} holds no study yet: its run has measured nothing")
    check_models(models, stored, run_dir)
    chosen = tuple(dict.fromkeys(models)) or stored
    if not target.for_many and len(chosen) > 1:
        raise JobError(f"{run_dir} holds several models; choose one with --model: {', '.join(chosen)}")
    exports, left_out = _exports(run, chosen, slo, all_or_none=bool(models), with_warmup=with_warmup)
    backups: dict[Path, Path | None] = {}
    if target.in_place:
        backups = _replaced(exports)
    elif target.folder is not None:
        for item in exports:
            _check_folders(item, target.folder)
    else:
        _check_one_file(exports[0])
    for item in exports:
        done = _in_place(item, backups) if target.in_place else _write(item, target)
        # Printed after the write, so that a failed write prints nothing but its error.
        for line in (
            f"{item.model}: {item.words}",
            *done,
            *([f"{item.model}: {item.warm_up}"] if item.warm_up else []),
            *(f"{item.model}: {line}" for line in item.patch.settings_in_words()),
        ):
            click.echo(line, err=True)
    if left_out:
        raise type(left_out[0])(f"not exported: {'; '.join(map(str, left_out))}")


def _exports(
    run: RunFolder, models: Sequence[str], slo: tuple[str, ...], *, all_or_none: bool, with_warmup: bool
) -> tuple[list[_Export], list[TritontuneError]]:
    """The exports, and the errors of the models without one.

    Raises:
        TritontuneError: no model has an export; or, if `all_or_none`, a model has none.
    """
    exports, left_out = [], list[TritontuneError]()
    for name in models:
        try:
            exports.append(_best(run, name, slo, with_warmup=with_warmup))
        except (JobError, SLOError) as error:
            if all_or_none:
                raise
            left_out.append(error)
    if not exports:
        raise left_out[0]
    return exports, left_out


def _best(run: RunFolder, model: str, slo: tuple[str, ...], *, with_warmup: bool) -> _Export:
    study = Study.load(run.database, model)
    if not study.trials:
        raise JobError(f"{run.path}: the study of model {model!r} has no finished trial")
    recommendation = study.recommendation_for(parsed_slo(slo)) if slo else study.recommendation
    if recommendation.best is None:
        words = slo_in_words(recommendation.slo, recommendation.objective)
        raise SLOError(f"no measured candidate of model {model!r} {words}")
    best = recommendation.best
    text = config_with_provenance(study, best, recommendation.gain, recommendation.slo)
    about = ""
    if not with_warmup:
        about = warm_up_in_words(study.warm_up) if study.warm_up and study.warm_up.shapes else ""
    elif (more := warmed(study, best.trial, text)) is None:
        about = why_not_warmed(study, best.trial)
    else:
        text, about = more, what_it_saves(study, best.trial)
    patch = changes_of(study, best).with_config(text)
    return _Export(study, patch, picked_in_words(study, recommendation), about)


def _replaced(exports: Sequence[_Export]) -> dict[Path, Path | None]:
    """Replace the files of all models in the repository that differ, all or none. Returns the backups by file.

    Each file must be the tuned one, or an export of the same study.

    Raises:
        ConfigError: a file is neither of these, or cannot be written.
    """
    repository = exports[0].repository
    if finish_replacing(repository):
        click.echo(f"{repository}: finished an export that was killed midway", err=True)
    replacements = []
    for item in exports:
        for path, text in item.files.items():
            sha256, differs = _differs(item, path, text)
            if differs:
                replacements.append(Replacement(repository / path, text, sha256))
    return {r.path: backup for r, backup in zip(replacements, replace_files(repository, replacements), strict=True)}


def _differs(item: _Export, path: str, new: str) -> tuple[str | None, bool]:
    """The SHA-256 of a file in the repository (None: there is none), and whether it differs from the new one.

    Raises:
        ConfigError: the file is neither the tuned one nor an export of the same study.
    """
    file = item.folder(path.partition("/")[0]).path / path.partition("/")[2]
    sha256 = sha256_of(file)
    # The file is not parsed: it may have become invalid.
    text = file.read_bytes().decode(errors="replace") if sha256 is not None else ""
    # The comment on provenance may differ.
    if sha256 is not None and without_provenance(text) == without_provenance(new):
        return sha256, False
    trials = [trial.deployable for trial in item.study.trials]
    if path == f"{item.model}/{CONFIG}":
        commented = without_provenance(text) != text
        configs = [patch.config for patch in trials]
        configs += filter(None, (warmed(item.study, trial, trial.deployable.config) for trial in item.study.trials))
        ours = commented and without_provenance(text) in set(map(without_provenance, configs))
    else:
        ours = text in {patch.files.get(path) for patch in trials}
    tuned = item.tuned.get(path, "")
    if sha256 != (hashlib.sha256(tuned.encode()).hexdigest() if tuned else None) and not ours:
        how = "removed" if sha256 is None else "changed" if tuned else "created"
        raise ConfigError(
            f"{file}: {how} since the run; nothing was written. Restore the tuned one, use --to FILE, or tune again"
        )
    return sha256, True


def _in_place(item: _Export, backups: Mapping[Path, Path | None]) -> list[str]:
    """Messages about the files of a model in the repository."""
    lines = []
    for path in item.files:
        file = item.repository / path
        if file not in backups:
            lines.append(f"{file}: unchanged, it is this config already")
        elif backup := backups[file]:
            lines.append(f"{file}: replaced, backup in {backup.name}")
        else:
            lines.append(f"{file}: created")
    return lines


def _write(item: _Export, target: Target) -> list[str]:
    """Write to the target. Returns messages about the result; none for stdout."""
    if target.folder is not None:
        return [_copied(item, model, target.folder) for model in _models_of(item)]
    text = _formatted(item, target)
    if target.file is None:
        click.echo(text, nl=False)
        return []
    try:
        write_atomically(target.file, text)
    except OSError as error:
        raise JobError(f"--to: cannot write {target.file}: {error.strerror or error}") from None
    return [f"{target.file}: written"]


def _copied(item: _Export, model: str, to: Path) -> str:
    folder = to / model
    files = {path.partition("/")[2]: text for path, text in item.files.items() if path.startswith(f"{model}/")}
    try:
        copy_model(item.folder(model), folder, files)
    except OSError as error:
        raise JobError(f"--to: cannot write {folder}: {error.strerror or error}") from None
    return f"{folder}: written"


def _models_of(item: _Export) -> list[str]:
    """The models with a file to deploy, the tuned one first."""
    return list(dict.fromkeys(path.partition("/")[0] for path in item.files))


def _formatted(item: _Export, target: Target) -> str:
    text = item.patch.config
    if target.format == "json":
        return config_json(ModelConfig.parse(text, item.model))
    return config_map(item.model, text) if target.format == "configmap" else text


def _check_one_file(item: _Export) -> None:
    """Check that one file holds all that is exported.

    Raises:
        JobError: further files must be deployed with it.
    """
    if item.patch.files:
        files = ", ".join(item.files)
        raise JobError(f"the best config of {item.model!r} is several files ({files}); use --to FOLDER or --in-place")


def _check_folders(item: _Export, to: Path) -> None:
    """Check that the folders of an export's models can be made.

    Raises:
        JobError: a folder exists, or lies in the repository.
    """
    for name in _models_of(item):
        model, folder = item.folder(name), to / name
        if os.path.lexists(folder):
            raise JobError(f"--to: {folder} exists already; choose another folder, or remove it")
        repository = item.repository.resolve()
        if folder.resolve().is_relative_to(repository) or folder.resolve().is_relative_to(model.path.resolve()):
            raise JobError(f"--to: {folder} is in the model repository; use --in-place to write there")
