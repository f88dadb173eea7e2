"""The tasks of a night, one for each model of the job file, checked before the night begins."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.config.repository import CONFIG, ModelFolder, ModelRepository
from tuner.config.tunable import why_not_tunable
from tuner.core.errors import JobError, UsageError
from tuner.core.quantities import format_duration
from tuner.jobs.tuning import chosen_models, own_configs, told_inputs
from tuner.load.inputs.input_data import check_input_data
from tuner.load.inputs.shapes import check_somewhere, shapes_for
from tuner.nightly.jobs import JobsFile, NightlyJob
from tuner.options.groups import MADE_UP
from tuner.servers.callees import check_load_model
from tuner.servers.contradictions import refuse_contradictions
from tuner.servers.installation import binary_of
from tuner.space.bounds import check_fields, check_places
from tuner.space.originals import originals_of
from tuner.space.spec import load_space


@dataclass(frozen=True)
class Task:
    """One model to keep tuned.

    Attributes:
        job: The job, whose `model` is this one alone.
        source: The place in the job file, for error messages.
        folder: The folder of its results: `REPOSITORY/MODEL`, with the name of the repository's folder.
        min_gain: Smallest gain to act on, as a share.
        min_regression: Smallest slowdown to report, as a share.
    """

    job: NightlyJob
    source: str
    repository: ModelRepository
    model: ModelFolder
    folder: str
    min_gain: float
    min_regression: float

    @property
    def name(self) -> str:
        """The name to show: `model_repository/mlp`."""
        return f"{self.repository.path.resolve().name}/{self.model.name}"

    @property
    def repository_key(self) -> str:
        """The repository's key in the history."""
        return str(self.repository.path.resolve())

    @property
    def config_path(self) -> Path:
        """The file of the deployed config."""
        return self.model.path / CONFIG


def tasks_of(file: JobsFile, source: Path, note: Callable[[str], None]) -> tuple[Task, ...]:
    """The tasks of a night, in the file's order.

    Args:
        file: The job file's content.
        source: The job file, for error messages.
        note: Takes messages on omitted models of a repository, with the reason.

    Raises:
        JobError: a job is wrong; the message is one line.
    """
    tasks: list[Task] = []
    for number, job in enumerate(file.jobs):
        where = f"{source}: jobs[{number}]"
        for task in _tasks(file, job, where, note):
            _check_alone(task, tasks)
            # Another repository may have the same folder name.
            taken = any(task.folder == other.folder for other in tasks)
            tasks.append(replace(task, folder=f"{number}-{task.folder}") if taken else task)
    _check_window(file, tasks, source)
    if file.work.exists() and not file.work.is_dir():
        raise JobError(f"{source}: work: {file.work} is not a folder")
    for task in tasks:
        if file.work.resolve().is_relative_to(task.repository.path.resolve()):
            raise JobError(f"{source}: work: {file.work} lies in the model repository {task.repository.path}")
    _check_prometheus(file, source)
    return tuple(tasks)


def _tasks(file: JobsFile, job: NightlyJob, where: str, note: Callable[[str], None]) -> list[Task]:
    try:
        repository = ModelRepository.open(job.repository or Path())
        models = chosen_models(repository, job.model, note)
        refuse_contradictions(job)
        if job.triton_path is not None:
            binary_of(job.triton_path)
        spec = load_space(job.space)
        check_fields(spec, own_configs(models), job.space)
        for model in models:
            check_places(spec, originals_of(spec, model, job), model.name, job.space)
        if job.input_data not in MADE_UP:
            check_input_data(Path(job.input_data))
        check_load_model(job.load_model, repository, models)
        if len(models) > 1:
            check_somewhere({model.name: told_inputs(model) for model in models}, job.shape)
        for model in models:
            _check_model(model, job)
    except UsageError as error:
        raise JobError(f"{where}: {error}") from None
    if job.action == "command" and not shutil.which(job.command[0]):
        raise JobError(f"{where}: command: no executable program {job.command[0]!r}")
    shares = file.min_gain_of(job), file.min_regression_of(job)
    return [
        Task(
            job.model_copy(
                update={
                    "model": (model.name,),
                    "shape": shapes_for(model.name, told_inputs(model), job.shape) if len(models) > 1 else job.shape,
                }
            ),
            where,
            repository,
            model,
            # The root folder has no name.
            f"{repository.path.resolve().name or 'root'}/{model.name}",
            *shares,
        )
        for model in models
    ]


def _check_model(model: ModelFolder, job: NightlyJob) -> None:
    reason = why_not_tunable(model.config.proto) if model.config else None
    if reason:
        raise JobError(f"model {model.name!r}: {reason}")
    config = model.path / CONFIG
    writable = os.access(config.resolve().parent, os.W_OK) and (not config.exists() or os.access(config, os.W_OK))
    if job.action == "apply" and not writable:
        raise JobError(f"action: apply, but {config} is not writable; use propose, or change its mode")


def _check_alone(task: Task, others: Sequence[Task]) -> None:
    for other in others:
        if (other.repository_key, other.model.name) == (task.repository_key, task.model.name):
            raise JobError(
                f"{task.source}: {other.source.rpartition(' ')[2]} is for model {task.model.name!r} of "
                f"{task.repository.path} too; omit one of them"
            )


def _check_window(file: JobsFile, tasks: Sequence[Task], source: Path) -> None:
    total = sum(task.job.budget for task in tasks)
    if total > file.window:
        budgets = f"the budgets of {len(tasks)} models are" if len(tasks) > 1 else "the budget is"
        raise JobError(
            f"{source}: window: {budgets} {format_duration(total)}, but the window is "
            f"{format_duration(file.window)}; extend it, or reduce the budgets"
        )


def _check_prometheus(file: JobsFile, source: Path) -> None:
    if file.prometheus and not (file.prometheus.parent.is_dir() and os.access(file.prometheus.parent, os.W_OK)):
        raise JobError(f"{source}: prometheus: {file.prometheus.parent} is not a writable folder")
