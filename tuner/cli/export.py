"""`tritontune export`: writes the best config of a run to a file, a folder, or the model repository."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from tuner.cli.export_target import Target
from tuner.cli.output_file import check_output
from tuner.cli.stored import check_models, parsed_slo
from tuner.config.config import ModelConfig
from tuner.config.deploy import replace_config, sha256_of
from tuner.config.formats import config_json, config_map
from tuner.config.model_copy import copy_model
from tuner.config.repository import CONFIG, ModelFolder, ModelRepository
from tuner.core.atomic_file import write_atomically
from tuner.core.errors import ConfigError, JobError, SLOError, TritontuneError
from tuner.results.picked import picked_in_words
from tuner.results.result_files import config_with_provenance, without_provenance
from tuner.results.words import slo_in_words
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study


@dataclass(frozen=True)
class _Export:
    """The export of one model.

    Attributes:
        text: The config, with a comment on its provenance on top.
        words: The chosen point, and how certain its numbers are, in words.
    """

    study: Study
    text: str
    words: str

    @property
    def model(self) -> str:
        """The name of the model."""
        return self.study.identity.model

    @property
    def folder(self) -> ModelFolder:
        """The folder of the model in the user's repository.

        Raises:
            JobError: the model has no repository on this machine.
        """
        repository = self.study.identity.repository
        if "://" in repository:
            raise JobError(
                f"model {self.model!r} was tuned at {repository} and has no repository here; use --to FILE.pbtxt"
            )
        return ModelRepository.open(Path(repository)).model(self.model)

    def expected_sha256(self) -> str | None:
        """SHA-256 of the config.pbtxt that was tuned, in hex; None: there was none."""
        tuned = self.study.identity.config
        return hashlib.sha256(tuned.encode()).hexdigest() if tuned else None


@dataclass(frozen=True)
class _Deployed:
    """The repository's own config.pbtxt before an export.

    Attributes:
        sha256: SHA-256 of the file, in hex; None: there is no file.
        is_same: Whether it equals the config to export, apart from the comment on provenance.
    """

    sha256: str | None
    is_same: bool


def export(
    run_dir: Path, models: tuple[str, ...], slo: tuple[str, ...], target: Target, *, force: bool = False
) -> None:
    """Export the best config of each model that the run recommends for this SLO; nothing is measured.

    Without names, models without a best config are skipped, and an error at the end names them.

    Args:
        run_dir: Folder of the run.
        models: Names of the models; empty: all.
        slo: Limits as in `--slo`; empty: the limits of the run.
        target: Where to write.
        force: Whether a file of the target may be replaced.

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
    exports, left_out = _exports(run, chosen, slo, all_or_none=bool(models))
    deployed: dict[str, _Deployed] = {}
    if target.in_place:
        # Checked before the first write: all models are exported, or none.
        deployed = {item.model: _deployed(item) for item in exports}
    elif target.folder is not None:
        for item in exports:
            _check_folder(item, target.folder)
    for item in exports:
        done = _in_place(item, deployed[item.model]) if target.in_place else _write(item, target)
        # Printed after the write, so that a failed write prints nothing but its error.
        for line in (f"{item.model}: {item.words}", done):
            if line:
                click.echo(line, err=True)
    if left_out:
        raise type(left_out[0])(f"not exported: {'; '.join(map(str, left_out))}")


def _exports(
    run: RunFolder, models: Sequence[str], slo: tuple[str, ...], *, all_or_none: bool
) -> tuple[list[_Export], list[TritontuneError]]:
    """The exports, and the errors of the models without one.

    Raises:
        TritontuneError: no model has an export; or, if `all_or_none`, a model has none.
    """
    exports, left_out = [], list[TritontuneError]()
    for name in models:
        try:
            exports.append(_best(run, name, slo))
        except (JobError, SLOError) as error:
            if all_or_none:
                raise
            left_out.append(error)
    if not exports:
        raise left_out[0]
    return exports, left_out


def _best(run: RunFolder, model: str, slo: tuple[str, ...]) -> _Export:
    study = Study.load(run.database, model)
    if not study.trials:
        raise JobError(f"{run.path}: the study of model {model!r} has no finished trial")
    recommendation = study.recommendation_for(parsed_slo(slo)) if slo else study.recommendation
    if recommendation.best is None:
        raise SLOError(f"no measured candidate of model {model!r} {slo_in_words(recommendation.slo)}")
    text = config_with_provenance(study, recommendation.best, recommendation.gain, recommendation.slo)
    return _Export(study, text, picked_in_words(study, recommendation))


def _deployed(item: _Export) -> _Deployed:
    """The config in the repository, which must be the tuned one, or an export of the same study.

    Raises:
        ConfigError: the config is neither of these.
    """
    path = item.folder.path / CONFIG
    sha256 = sha256_of(path)
    # The file is not parsed: it may have become invalid.
    text = path.read_bytes().decode(errors="replace") if sha256 is not None else ""
    config = without_provenance(text)
    # The comment on provenance may differ.
    if sha256 is not None and config == without_provenance(item.text):
        return _Deployed(sha256, is_same=True)
    exported = config != text and config in {without_provenance(t.deployable_config) for t in item.study.trials}
    if sha256 != item.expected_sha256() and not exported:
        how = "removed" if sha256 is None else "changed" if item.study.identity.config else "created"
        raise ConfigError(
            f"{path}: {how} since the run; nothing was written. Restore the tuned one, use --to FILE, or tune again"
        )
    return _Deployed(sha256, is_same=False)


def _in_place(item: _Export, deployed: _Deployed) -> str:
    """Replace the file in the repository, unless it is the same. Returns a message about the result."""
    path = item.folder.path / CONFIG
    if deployed.is_same:
        return f"{path}: unchanged, it is this config already"
    backup = replace_config(path, item.text, expected_sha256=deployed.sha256)
    return f"{path}: replaced, backup in {backup.name}" if backup else f"{path}: created"


def _write(item: _Export, target: Target) -> str:
    """Write to the target. Returns a message about the result; empty for stdout."""
    if target.folder is not None:
        folder = target.folder / item.model
        try:
            copy_model(item.folder, folder, item.text)
        except OSError as error:
            raise JobError(f"--to: cannot write {folder}: {error.strerror or error}") from None
        return f"{folder}: written"
    text = _formatted(item, target)
    if target.file is None:
        click.echo(text, nl=False)
        return ""
    try:
        write_atomically(target.file, text)
    except OSError as error:
        raise JobError(f"--to: cannot write {target.file}: {error.strerror or error}") from None
    return f"{target.file}: written"


def _formatted(item: _Export, target: Target) -> str:
    if target.format == "json":
        return config_json(ModelConfig.parse(item.text, item.model))
    return config_map(item.model, item.text) if target.format == "configmap" else item.text


def _check_folder(item: _Export, to: Path) -> None:
    """Check that the folder of a model can be made.

    Raises:
        JobError: the folder exists, or lies in the repository.
    """
    model, folder = item.folder, to / item.model
    if os.path.lexists(folder):
        raise JobError(f"--to: {folder} exists already; choose another folder, or remove it")
    repository = Path(item.study.identity.repository).resolve()
    if folder.resolve().is_relative_to(repository) or folder.resolve().is_relative_to(model.path.resolve()):
        raise JobError(f"--to: {folder} is in the model repository; use --in-place to write there")
