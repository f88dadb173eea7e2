"""`tritontune export`: the best config of a finished run, to where it is needed."""

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
from tuner.results.files import config_with_provenance, without_provenance
from tuner.results.picked import picked_in_words
from tuner.results.words import what_is_asked
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study


@dataclass(frozen=True)
class _Export:
    """What is exported of one model.

    Attributes:
        text: The config, with its provenance on top.
        words: What was picked.
    """

    study: Study
    text: str
    words: str

    @property
    def model(self) -> str:
        """Its name."""
        return self.study.identity.model

    @property
    def folder(self) -> ModelFolder:
        """The user's own folder of the model.

        Raises:
            JobError: there is none on this machine.
        """
        repository = self.study.identity.repository
        if "://" in repository:
            raise JobError(
                f"{self.model} was tuned at {repository} and has no repository here; export --to a FILE.pbtxt"
            )
        return ModelRepository.open(Path(repository)).model(self.model)

    def expected_sha256(self) -> str | None:
        """Of the config.pbtxt that was tuned; None: there was none."""
        tuned = self.study.identity.config
        return hashlib.sha256(tuned.encode()).hexdigest() if tuned else None


@dataclass(frozen=True)
class _Deployed:
    """The repository's own config.pbtxt before an export.

    Attributes:
        sha256: Of the file; None: there is none.
        is_same: Whether it says what is to be exported.
    """

    sha256: str | None
    is_same: bool


def export(
    run_dir: Path, models: tuple[str, ...], slo: tuple[str, ...], target: Target, *, force: bool = False
) -> None:
    """Export the best config of each model.

    Nothing is measured. What it picks is what the run itself would recommend for this limit from what is stored.
    Without names, models that have nothing to export are left out, and told of in the end.

    Args:
        run_dir: Of the run.
        models: Their names; none: all.
        slo: The limits, as `--slo` has them; none: the run's own.
        target: Where to.
        force: Whether the target's file may be there already.

    Raises:
        JobError: there is no such run or model, or it cannot be written there.
        SLOError: no candidate holds the SLO.
        ConfigError: the repository's config.pbtxt is no longer the one that was tuned.
    """
    check_output(target.file, option="--to", force=force)
    run = RunFolder.existing(run_dir)
    known = Study.models(run.database)
    if not known:
        raise JobError(f"{run_dir} holds no study of a model yet; its run has measured nothing")
    check_models(models, known, run_dir)
    chosen = tuple(dict.fromkeys(models)) or known
    if not target.for_many and len(chosen) > 1:
        raise JobError(f"{run_dir} holds several models; choose one with --model: {', '.join(chosen)}")
    exports, left_out = _exports(run, chosen, slo, all_or_none=bool(models))
    deployed: dict[str, _Deployed] = {}
    if target.in_place:
        # Of several models, all or none.
        deployed = {each.model: _deployed(each) for each in exports}
    elif target.folder is not None:
        for each in exports:
            _check_folder(each, target.folder)
    for each in exports:
        done = _in_place(each, deployed[each.model]) if target.in_place else _write(each, target)
        # Said when it is done: an error is one line.
        for line in (f"{each.model}: {each.words}", done):
            if line:
                click.echo(line, err=True)
    if left_out:
        raise type(left_out[0])(f"not exported: {'; '.join(map(str, left_out))}")


def _exports(
    run: RunFolder, models: Sequence[str], slo: tuple[str, ...], *, all_or_none: bool
) -> tuple[list[_Export], list[TritontuneError]]:
    """The models that have something to export, and why others have not.

    Raises:
        TritontuneError: none has, or, if `all_or_none`, one has not.
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
        raise JobError(f"{run.path}: the study of {model!r} has no finished trial")
    found = study.recommendation_for(parsed_slo(slo)) if slo else study.recommendation
    if found.best is None:
        raise SLOError(f"no measured candidate of {model} {what_is_asked(found.slo)}")
    text = config_with_provenance(study, found.best, found.gain, found.slo)
    return _Export(study, text, picked_in_words(study, found))


def _deployed(each: _Export) -> _Deployed:
    """What the repository has now, if it may be replaced: what was tuned, or what was exported from the same study.

    Raises:
        ConfigError: it is something else.
    """
    path = each.folder.path / CONFIG
    found = sha256_of(path)
    # It need not be a config any more, so nobody parses it.
    text = path.read_bytes().decode(errors="replace") if found is not None else ""
    config = without_provenance(text)
    # Who exported it and why does not count.
    if found is not None and config == without_provenance(each.text):
        return _Deployed(found, is_same=True)
    exported = config != text and config in {without_provenance(t.deployable_config) for t in each.study.trials}
    if found != each.expected_sha256() and not exported:
        how = "is gone" if found is None else "has changed" if each.study.identity.config else "has come into being"
        raise ConfigError(
            f"{path}: {how} since the study; nothing was written: put back the one that was tuned, "
            "export --to a file, or tune anew"
        )
    return _Deployed(found, is_same=False)


def _in_place(each: _Export, deployed: _Deployed) -> str:
    """Replace the repository's own file, if it is to change. Returns what was done."""
    path = each.folder.path / CONFIG
    if deployed.is_same:
        return f"{path}: says the same already; nothing was changed"
    backup = replace_config(path, each.text, expected_sha256=deployed.sha256)
    return f"{path}: replaced; the one before is {backup.name}" if backup else f"{path}: written; there was none before"


def _write(each: _Export, target: Target) -> str:
    """Write it where it is to go. Returns what was done, if that is not to be seen."""
    if target.folder is not None:
        folder = target.folder / each.model
        try:
            copy_model(each.folder, folder, each.text)
        except OSError as error:
            raise JobError(f"--to: {folder}: cannot be written: {error.strerror or error}") from None
        return f"{folder}: written"
    text = _formatted(each, target)
    if target.file is None:
        click.echo(text, nl=False)
        return ""
    try:
        write_atomically(target.file, text)
    except OSError as error:
        raise JobError(f"--to: {target.file}: cannot be written: {error.strerror or error}") from None
    return f"{target.file}: written"


def _formatted(each: _Export, target: Target) -> str:
    if target.format == "json":
        return config_json(ModelConfig.parse(each.text, each.model))
    return config_map(each.model, each.text) if target.format == "configmap" else each.text


def _check_folder(each: _Export, to: Path) -> None:
    """See that a model's folder can be made, before any is."""
    model, folder = each.folder, to / each.model
    if os.path.lexists(folder):
        raise JobError(f"--to: {folder} is there already; name another folder, or remove it")
    repository = Path(each.study.identity.repository).resolve()
    if folder.resolve().is_relative_to(repository) or folder.resolve().is_relative_to(model.path.resolve()):
        raise JobError(f"--to: {folder} lies in the model repository, in which only --in-place writes")
