"""Runs a tuning job: prepares the run, tunes each model in turn, and writes the report."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from tuner.cluster.choose_executor import open_executor
from tuner.cluster.executor import Executor
from tuner.cluster.host_changes import HostChange
from tuner.cluster.in_process import InProcessExecutor
from tuner.cluster.slot_context import SlotContext, SlotRecipe, launcher_of, slot_context
from tuner.config.config import ModelConfig
from tuner.config.repository import ModelFolder, ModelRepository
from tuner.config.tunable import why_not_loadable, why_not_tunable
from tuner.core.boundary import in_one_line
from tuner.core.errors import (
    ConfigError,
    InterruptedRunError,
    JobError,
    RepositoryError,
    TritontuneError,
    TuningError,
    UsageError,
)
from tuner.core.nvml import driver_version
from tuner.jobs.model_tuning import ModelTuning
from tuner.jobs.progress import ModelOutcome, Progress, Progresses
from tuner.jobs.run_context import RunContext
from tuner.jobs.stored_job import store_job
from tuner.load.inputs.input_data import check_input_data
from tuner.load.inputs.shapes import check_somewhere
from tuner.options.groups import MADE_UP
from tuner.options.tune_job import TuneJob
from tuner.results.result_files import write_results
from tuner.search.choose_sampler import check_installed
from tuner.servers.callees import check_load_model
from tuner.servers.own_configs import OwnConfigs
from tuner.servers.protocols import Launcher
from tuner.servers.remote import RemoteLauncher
from tuner.servers.served import served_repository
from tuner.servers.work_folder import remove_abandoned_work, work_folder
from tuner.space.bounds import check_fields, check_places
from tuner.space.originals import check_reachable, originals_of
from tuner.space.spec import load_space
from tuner.study.provenance import provenance
from tuner.study.run_folder import RunFolder
from tuner.study.study import Identity, Study


@dataclass(frozen=True)
class RunResult:
    """The result of a run.

    Attributes:
        folder: The run folder.
        outcomes: The outcomes of the models that were tuned.
        failures: The errors of the models that could not be tuned, by model name.
    """

    folder: RunFolder
    outcomes: tuple[ModelOutcome, ...]
    failures: Mapping[str, TritontuneError]


WriteReport = Callable[[RunFolder], Path]
"""Writes the report of a run from its stored studies, and returns its path."""


def tune(
    job: TuneJob,
    *,
    write_report: WriteReport,
    out: RunFolder | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> RunResult:
    """Tune every model of the job, in turn.

    Args:
        job: The job.
        write_report: Writes the report at the end, however the run ends.
        out: The run folder; None: a new folder named by the time.
        resume: Whether to continue the studies in `out`.
        progress: Receives the events of the run.

    Raises:
        UsageError: the job, the repository, or the only model's input is wrong.
        TuningError: no model could be tuned; with a single model, its error.
        InterruptedRunError: Ctrl-C; all finished trials are stored, and the result files are written.
    """
    out = out or RunFolder.default()
    # Executors tell of their work from threads of their own.
    alone = Progresses(*([progress] if progress else []))
    with run_context(job, out, resume=resume, progress=alone) as (context, models):
        # Remove the report and the error log of an earlier attempt, which a killed or successful run must not show.
        for file in (out.report, out.log):
            file.unlink(missing_ok=True)
        with reported(context, write_report):
            return _tune_models(context, models)


@contextmanager
def run_context(
    job: TuneJob, out: RunFolder, *, progress: Progress, resume: bool = False
) -> Iterator[tuple[RunContext, tuple[ModelFolder, ...]]]:
    """Prepare everything to launch the models of a job, and clean it up at the end.

    Yields:
        The context of the run, and its models.

    Raises:
        UsageError: the job or the repository is wrong.
        TuningError: no model can be tuned, or no Triton works.
    """
    spec = load_space(job.space)
    check_installed(job.sampler)
    if job.input_data not in MADE_UP:
        check_input_data(Path(job.input_data))
    if job.warm_start is not None:
        RunFolder.existing(job.warm_start)
    remove_abandoned_work()
    if resume and job.url is not None:
        give_back(job, out, progress)
    with _repository(job) as repository:
        models = chosen_models(repository, job.model, progress.note, on_disk=job.url is None)
        check_load_model(job.load_model, repository, models)
        check_fields(spec, own_configs(models), job.space)
        check_reachable(spec, job)
        for model in models:
            check_places(spec, originals_of(spec, model, job), model.name, job.space)
        if len(models) > 1:
            check_somewhere({model.name: told_inputs(model) for model in models}, job.shape)
        if out.path.resolve().is_relative_to(repository.path.resolve()):
            raise JobError(
                f"--out: {out.path} lies in the model repository, which is never written to; choose another folder"
            )
        names = tuple(model.name for model in models)
        with _executor(job, out, progress, repository, names, resume=resume) as (executor, here):
            yield RunContext(job, out, spec, executor, progress, names, here), models


@contextmanager
def _executor(
    job: TuneJob,
    out: RunFolder,
    progress: Progress,
    repository: ModelRepository,
    models: tuple[str, ...],
    *,
    resume: bool,
) -> Iterator[tuple[Executor, SlotContext | None]]:
    """The executor of a run, and what launches need in this process, if they are carried out here.

    The folder of the run is opened when a server was started, so that a run that cannot begin leaves no folder.
    """
    if job.has_slots:
        changes = _HostChanges(progress)
        recipe = SlotRecipe(job, models, repository.path.resolve())
        with (
            open_executor(recipe, note=progress.note, see_pull=progress.pulling, tell=changes) as executor,
            out.opened(resume=resume),
        ):
            _begin(job, out, progress, resume=resume)
            changes.run_began()
            yield executor, None
        return
    launcher = _launcher(job, out, progress, repository, models)
    with closing(launcher), out.opened(resume=resume):
        _begin(job, out, progress, resume=resume)
        with (
            slot_context(job, launcher, repository, out.work, progress.note) as here,
            InProcessExecutor(here) as in_process,
        ):
            yield in_process, here


def _begin(job: TuneJob, out: RunFolder, progress: Progress, *, resume: bool) -> None:
    """Begin a run in its folder."""
    if not resume:
        out.events.unlink(missing_ok=True)  # of a run that ended before it had measured anything
    progress.run_began()
    store_job(job, out.job)


class _HostChanges:
    """Passes on what happens to hosts, once the run has begun.

    Args:
        progress: Receives it.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = Lock()
        self._before: list[HostChange] | None = []

    def __call__(self, change: HostChange) -> None:
        """Take a change, from any thread."""
        with self._lock:
            if self._before is not None:
                self._before.append(change)
                return
        self._progress.host_changed(change)

    def run_began(self) -> None:
        """Pass on what happened before the run began, and from now on all at once."""
        with self._lock:
            before, self._before = self._before or [], None
        for change in before:
            self._progress.host_changed(change)


@contextmanager
def _repository(job: TuneJob) -> Iterator[ModelRepository]:
    """The user's repository; with `--url`, a repository of the configs that the server reports."""
    if job.repository is not None:
        yield ModelRepository.open(job.repository)
        return
    with work_folder() as folder:
        yield served_repository(job.endpoint(job.header), job.model, folder)


def give_back(job: TuneJob, out: RunFolder, progress: Progress) -> None:
    """Restore the model configs that a killed run had replaced on a running server.

    Args:
        job: The job of the run, with `url`.
        out: The folder of the run.
        progress: Receives a note.

    Raises:
        UsageError: the folder is no run folder, or is in use.
        ServerError: the server cannot be reached, or refuses.
    """
    with out.opened(resume=True):
        if out.own_configs.exists():
            progress.note(f"{job.url}: restoring the model configs that a killed run had replaced")
            _remote(job, out, progress).close()


def _launcher(
    job: TuneJob, out: RunFolder, progress: Progress, repository: ModelRepository, models: tuple[str, ...]
) -> Launcher:
    if job.url is not None:
        return _remote(job, out, progress)
    return launcher_of(job, repository, models, progress.note, progress.pulling)


def _remote(job: TuneJob, out: RunFolder, progress: Progress) -> RemoteLauncher:
    endpoint = job.endpoint(job.header)
    own = OwnConfigs(out.own_configs, f"{endpoint.address}{endpoint.path}")
    remote = RemoteLauncher(endpoint, job.metrics_url, progress.note, own)
    remote.look()
    return remote


def _tune_models(context: RunContext, models: Sequence[ModelFolder]) -> RunResult:
    out, progress = context.out, context.progress
    outcomes, failures = [], {}
    for model in models:
        try:
            outcomes.append(tune_model(context, model))
        except InterruptedRunError:
            raise
        except TritontuneError as error:
            failures[model.name] = error
            progress.model_failed(model.name, error)
            if len(models) > 1:
                progress.note(f"{model.name}: {error}")
    if not outcomes and out.database.exists() and not any(study.trials for study in Study.load_all(out.database)):
        out.database.unlink()  # Nothing was measured, so the folder can be used again.
    if not outcomes:
        raise next(iter(failures.values()))
    return RunResult(out, tuple(outcomes), failures)


@contextmanager
def reported(context: RunContext, write_report: WriteReport) -> Iterator[None]:
    """Write the report at the end of the context, even after an error. A failure to write is only noted."""
    try:
        yield
    finally:
        if context.out.database.exists():
            context.progress.phase_began("report")
            try:
                context.progress.reported(write_report(context.out))
            except Exception as error:  # noqa: BLE001 (the measurements are stored, so a failed report must not end the run)
                reason = str(error) if isinstance(error, UsageError) else in_one_line(error)
                context.progress.note(
                    f"cannot write the report: {reason}; "
                    f"retry with: tritontune report {shlex.quote(str(context.out.path))}"
                )


def chosen_models(
    repository: ModelRepository, names: Sequence[str], note: Callable[[str], None], *, on_disk: bool = True
) -> tuple[ModelFolder, ...]:
    """The named models, or all models that can be tuned according to their files.

    Args:
        repository: The model repository.
        names: Names of models; empty: all.
        note: Takes a message for each skipped model.
        on_disk: Whether the repository is the user's, not one made from a server's configs.

    Raises:
        RepositoryError: a named model does not exist, or Triton would not load the only one.
        ConfigError: the config of the only model cannot be read.
        TuningError: no model can be tuned.
    """
    named = [repository.model(name) for name in dict.fromkeys(names)] or repository.models
    if len(named) == 1:
        _ = named[0].config  # raises an error if it cannot be read
        if on_disk and (reason := why_not_loadable(named[0])):
            raise RepositoryError(reason)
    if names or len(named) == 1:
        return tuple(named)
    chosen = []
    for model in repository.models:
        if reason := _refusal(model, on_disk=on_disk):
            note(f"skipped model {model.name}: {reason}")
        else:
            chosen.append(model)
    if not chosen:
        raise TuningError(f"{repository.path}: none of its models can be tuned")
    return tuple(chosen)


def own_configs(models: Iterable[ModelFolder]) -> list[ModelConfig]:
    """The readable configs of some models."""
    configs = []
    for model in models:
        with suppress(ConfigError):
            configs += [model.config] if model.config else []
    return configs


def told_inputs(model: ModelFolder) -> tuple[str, ...] | None:
    """The names of a model's inputs by its config; None: unknown, as when Triton completes the config."""
    try:
        names = tuple(tensor.name for tensor in model.config.proto.input) if model.config else ()
    except ConfigError:
        return None
    return names or None


def _refusal(model: ModelFolder, *, on_disk: bool) -> str | None:
    try:
        reason = why_not_tunable(model.config.proto) if model.config else None
        return reason or (why_not_loadable(model) if on_disk else None)
    except ConfigError:
        return None  # the tuning of this model reports the error


def tune_model(context: RunContext, model: ModelFolder) -> ModelOutcome:
    """Tune one model of a run.

    Raises:
        TritontuneError: the model cannot be tuned; see `tune`.
    """
    study = Study.create_or_resume(context.out.database, identity_of(context, model))
    study.begin(provenance(context.job, context.machine))
    context.progress.model_began(model.name, study=study, budget_s=context.job.budget)
    try:
        ended = ModelTuning(context, model, study).run()
    except KeyboardInterrupt:
        if study.trials:
            _outcome(context, study, "interrupted")
        else:
            study.end("interrupted")
        raise InterruptedRunError(f"interrupted; {_go_on(context)}") from None
    except UsageError as error:
        study.end(str(error))
        raise
    except TuningError as error:
        if not study.trials:
            study.end(str(error))
            raise
        _outcome(context, study, "cut short")
        raise TuningError(f"{error}; once that is fixed, {_go_on(context)}") from error
    except Exception as error:
        # Write the results so far; a second error here must not hide the first.
        with suppress(Exception):
            _outcome(context, study, f"cut short: {in_one_line(error)}")
        raise
    return _outcome(context, study, ended)


def _go_on(context: RunContext) -> str:
    return f"resume with: tritontune run --resume --out {shlex.quote(str(context.out.path))}"


def _outcome(context: RunContext, study: Study, ended: str) -> ModelOutcome:
    study.end(ended)
    outcome = ModelOutcome(context.out, study.identity.model, study, write_results(context.out, study), ended)
    context.progress.model_ended(outcome)
    return outcome


def identity_of(context: RunContext, model: ModelFolder) -> Identity:
    """The identity of a model's study, which must be equal to resume it."""
    job = context.job
    return Identity(
        model=model.name,
        repository=str(job.repository.resolve()) if job.repository else job.endpoint(()).url,
        files=model.fingerprint(),
        others=originals_of(context.spec, model, job).beyond_config,
        config=model.config.text if model.config else "",
        slo=job.slo,
        objective=job.objective,
        space=context.spec.model_dump_json(),
        requests=job.request_options(),
        server=context.description,
        machine=str(context.machine),
        driver=driver_version() if job.url is None else "",
        seed=job.seed,
        max_gpu_memory=job.max_gpu_memory,
        output_tolerance=job.output_tolerance,
    )
