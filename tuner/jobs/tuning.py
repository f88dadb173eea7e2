"""The main way through: from a job to recommendations, one model after the other."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.config.beside import place_beside
from tuner.config.config import ModelConfig
from tuner.config.repository import ModelFolder, ModelRepository
from tuner.config.staging import stage
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
from tuner.core.machine import Machine
from tuner.core.nvml import driver_version
from tuner.jobs.model_tuning import ModelTuning, RunContext
from tuner.jobs.progress import ModelOutcome, Progress
from tuner.jobs.provenance import provenance
from tuner.jobs.stored_job import store_job
from tuner.load.inputs.input_data import check_input_data
from tuner.load.inputs.shapes import check_somewhere
from tuner.measure.gpu import Gpus
from tuner.options.groups import MADE_UP
from tuner.options.tune_job import TuneJob
from tuner.results.files import write_results
from tuner.search.choose import check_installed
from tuner.servers.callees import check_load_model
from tuner.servers.choose import choose_launcher, clear_leftovers
from tuner.servers.own_configs import OwnConfigs
from tuner.servers.protocols import Launcher
from tuner.servers.reload import ReloadLauncher
from tuner.servers.remote import RemoteLauncher
from tuner.servers.served import served_repository
from tuner.servers.work_folder import remove_abandoned_work, work_folder
from tuner.space.bounds import check_fields
from tuner.space.spec import load_space
from tuner.study.run_folder import RunFolder
from tuner.study.study import Identity, Study


@dataclass(frozen=True)
class RunResult:
    """What a run found.

    Attributes:
        folder: Where all of it lies.
        outcomes: Of the models that were tuned.
        failures: Of those that could not be, by name.
    """

    folder: RunFolder
    outcomes: tuple[ModelOutcome, ...]
    failures: Mapping[str, TritontuneError]


WriteReport = Callable[[RunFolder], Path]
"""Writes the report of a run from what the run has stored, and returns its path."""


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
        job: What to tune.
        write_report: Writes the report at the end, however the run ends.
        out: Where the run leaves its results; None: a new folder named by the time.
        resume: Go on with the studies that `out` holds.
        progress: Is told what happens.

    Raises:
        UsageError: the job, the repository, or the only model's input is wrong.
        TuningError: no model could be tuned; with a single model, its own reason.
        InterruptedRunError: Ctrl-C; all finished trials are stored and written.
    """
    out = out or RunFolder.default()
    with run_context(job, out, resume=resume, progress=progress or Progress()) as (context, models):
        # A kill is to leave no report of the run before it was resumed, and success no log of what went wrong then.
        for file in (out.report, out.log):
            file.unlink(missing_ok=True)
        with reported(context, write_report):
            return _tune_models(context, models)


@contextmanager
def run_context(
    job: TuneJob, out: RunFolder, *, progress: Progress, resume: bool = False
) -> Iterator[tuple[RunContext, tuple[ModelFolder, ...]]]:
    """All that it takes to launch the models of a job, and those models; it is cleared away in the end.

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
        _give_back(job, out, progress)
    with _repository(job) as repository:
        models = chosen_models(repository, job.model, progress.note, on_disk=job.url is None)
        check_load_model(job.load_model, repository, models)
        check_fields(spec, own_configs(models), job.space)
        if len(models) > 1:
            check_somewhere({model.name: told_inputs(model) for model in models}, job.shape)
        if out.path.resolve().is_relative_to(repository.path.resolve()):
            raise JobError(
                f"--out: {out.path} lies in the model repository, which is never written to; choose another folder"
            )
        launcher = _launcher(job, out, progress, models)
        with out.opened(resume=resume), closing(launcher), Gpus(launcher.gpus, progress.note) as gpus:
            if job.max_gpu_memory is not None and gpus.problem:
                raise JobError(f"--max-gpu-memory: cannot measure GPU memory here: {gpus.problem}")
            clear_leftovers(launcher, progress.note)
            store_job(job, out.job)
            staged = stage(repository, out.work / "served" / "repository")
            placed = place_beside(repository, staged) if job.url is None else ()
            names = tuple(model.name for model in models)
            machine = _machine(launcher, gpus)
            yield RunContext(job, out, spec, machine, launcher, gpus, staged, progress, names, placed), models


def _machine(launcher: Launcher, gpus: Gpus) -> Machine:
    """What servers run on; of this machine's GPUs, those that they see."""
    machine = launcher.machine
    return machine if launcher.gpus is None else replace(machine, gpus=gpus.visible)


@contextmanager
def _repository(job: TuneJob) -> Iterator[ModelRepository]:
    """The user's; or, of a server that runs, what that tells."""
    if job.repository is not None:
        yield ModelRepository.open(job.repository)
        return
    with work_folder() as folder:
        yield served_repository(job.endpoint(job.header), job.model, folder)


def _give_back(job: TuneJob, out: RunFolder, progress: Progress) -> None:
    """Undo what a killed run left on a server: the study is of the model with its own config."""
    with out.opened(resume=True):
        if out.own_configs.exists():
            progress.note(f"{job.url}: restoring the model configs that a killed run had replaced")
            _remote(job, out, progress).close()


def _launcher(job: TuneJob, out: RunFolder, progress: Progress, models: Sequence[ModelFolder]) -> Launcher:
    if job.url is not None:
        return _remote(job, out, progress)
    launcher = choose_launcher(job, progress.note, progress.pulling, headers=job.header, models=models)
    return ReloadLauncher(launcher) if job.isolation == "reload" else launcher


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
    if not outcomes and out.database.exists() and not any(each.trials for each in Study.load_all(out.database)):
        out.database.unlink()  # Nothing was measured, so the folder is free for another try.
    if not outcomes:
        raise next(iter(failures.values()))
    return RunResult(out, tuple(outcomes), failures)


@contextmanager
def reported(context: RunContext, write_report: WriteReport) -> Iterator[None]:
    """However a run ends, what it has measured is there to be read; a report that fails hides no other error."""
    try:
        yield
    finally:
        if context.out.database.exists():
            try:
                context.progress.reported(write_report(context.out))
            except Exception as error:  # noqa: BLE001 (what was measured is stored, and more than any page of it)
                told = str(error) if isinstance(error, UsageError) else in_one_line(error)
                context.progress.note(
                    f"cannot write the report: {told}; "
                    f"retry with: tritontune report {shlex.quote(str(context.out.path))}"
                )


def chosen_models(
    repository: ModelRepository, names: Sequence[str], note: Callable[[str], None], *, on_disk: bool = True
) -> tuple[ModelFolder, ...]:
    """The models that were named, else all that can be tuned as far as their files tell.

    Args:
        repository: Where they are.
        names: Those that were named; none: all.
        note: Is told which are left out, and why.
        on_disk: Whether it is the repository itself, and not what a server that runs tells of its own.

    Raises:
        RepositoryError: there is no such model, or Triton would not load the only one.
        ConfigError: the only one has a config that cannot be read.
        TuningError: none of them can be tuned.
    """
    named = [repository.model(name) for name in dict.fromkeys(names)] or repository.models
    if len(named) == 1:
        _ = named[0].config  # If that cannot be read, there is no need to begin.
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
    """The configs of the models that have one that can be read."""
    configs = []
    for model in models:
        with suppress(ConfigError):
            configs += [model.config] if model.config else []
    return configs


def told_inputs(model: ModelFolder) -> tuple[str, ...] | None:
    """The names of a model's inputs; None: its files do not tell, as where Triton completes the config."""
    try:
        names = tuple(each.name for each in model.config.proto.input) if model.config else ()
    except ConfigError:
        return None
    return names or None


def _refusal(model: ModelFolder, *, on_disk: bool) -> str | None:
    try:
        reason = why_not_tunable(model.config.proto) if model.config else None
        return reason or (why_not_loadable(model) if on_disk else None)
    except ConfigError:
        return None  # It has its turn, and fails in it: the others need not.


def tune_model(context: RunContext, model: ModelFolder) -> ModelOutcome:
    """Tune one model of a run.

    Raises:
        TritontuneError: it cannot be tuned; see `tune`.
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
        # What was measured is to be read, as far as what went wrong lets it.
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
    """What the study of a model is about."""
    job = context.job
    return Identity(
        model=model.name,
        repository=str(job.repository.resolve()) if job.repository else job.endpoint(()).url,
        files=model.fingerprint(),
        config=model.config.text if model.config else "",
        slo=job.slo,
        space=context.spec.model_dump_json(by_alias=True),
        requests=job.request_options(),
        server=context.launcher.description,
        machine=str(context.machine),
        driver=driver_version() if job.url is None else "",
        seed=job.seed,
        max_gpu_memory=job.max_gpu_memory,
        output_tolerance=job.output_tolerance,
    )
