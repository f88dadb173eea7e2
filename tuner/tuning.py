"""The main way through: from a job to recommendations, one model after the other."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tuner.errors import ConfigError, InterruptedRunError, JobError, TritontuneError, TuningError
from tuner.job import TuneJob
from tuner.machine import Machine
from tuner.measure.level import LevelRules
from tuner.measure.session import hangs_after_s
from tuner.models.config import ModelConfig
from tuner.models.repository import ModelFolder, ModelRepository
from tuner.models.staging import StagedRepository, stage
from tuner.models.tunable import why_not_tunable
from tuner.progress import ModelOutcome, Progress
from tuner.report.files import write_results
from tuner.run_folder import RunFolder
from tuner.search.proposals import Proposals
from tuner.search.recommend import recommend
from tuner.search.samplers import TpeSampler
from tuner.search.stopping import Stopping
from tuner.search.study import Identity, Study
from tuner.servers.choose import choose_launcher
from tuner.servers.protocols import Launcher
from tuner.space.candidate import Candidate
from tuner.space.space import SearchSpace
from tuner.space.spec import SpaceSpec, load_space
from tuner.trial import Bench, Limits, TrialResult, run_trial

# A search is better off with twice the candidates than with intervals half as wide.
_SWEEP_RULES = LevelRules(throughput_precision=0.05, latency_precision=0.15, max_s=1.5)
# The first request to a model of which nothing is known: it may compile, or fill caches.
FIRST_ANSWER_S = 120.0
_FIRST_LAUNCH_S = 120.0
_SLOW_DISK_BYTES_PER_S = 50e6
# Later launches are known by the first; with more instances they take longer.
_PATIENCE_S = 30.0
_SLOWER = 10.0
# What a trial needs besides its launch to tell anything: the first load levels.
_FIRST_LEVELS_S = 2.0


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


def tune(
    job: TuneJob, *, out: RunFolder | None = None, resume: bool = False, progress: Progress | None = None
) -> RunResult:
    """Tune every model of the job, in turn.

    Args:
        job: What to tune.
        out: Where the run leaves its results; None: a new folder named by the time.
        resume: Go on with the studies that `out` holds.
        progress: Is told what happens.

    Raises:
        UsageError: the job, the repository, or the only model's input is wrong.
        TuningError: no model could be tuned; with a single model, its own reason.
        InterruptedRunError: Ctrl-C; all finished trials are stored and written.
    """
    progress = progress or Progress()
    out = out or RunFolder.default()
    repository = ModelRepository.open(job.repository)
    spec = load_space(job.space)
    models = _chosen(repository, job, progress)
    if out.path.resolve().is_relative_to(job.repository.resolve()):
        raise JobError(f"--out: {out.path} lies in the model repository, which is never written to; choose another")
    launcher = choose_launcher(job, progress.note)
    with out.opened(resume=resume):
        if count := launcher.remove_leftovers():
            progress.note(f"removed {count} server{'s' * (count > 1)} that a killed run had left behind")
        run = _Run(job, out, spec, Machine.here(), launcher, stage(repository, out.work / "repository"), progress)
        outcomes, failures = [], {}
        for model in models:
            try:
                outcomes.append(run.tune(model))
            except InterruptedRunError:
                raise
            except TritontuneError as error:
                failures[model.name] = error
                if len(models) > 1:
                    progress.note(f"{model.name}: {error}")
    if not outcomes:
        raise next(iter(failures.values()))
    return RunResult(out, tuple(outcomes), failures)


def first_launch_s(model: ModelFolder) -> float:
    """The deadline for the launch of a model of which only the size is known, in seconds."""
    return _FIRST_LAUNCH_S + model.size_bytes() / _SLOW_DISK_BYTES_PER_S


def _chosen(repository: ModelRepository, job: TuneJob, progress: Progress) -> tuple[ModelFolder, ...]:
    """The models that were named, else all that can be tuned as far as their files tell."""
    named = [repository.model(name) for name in dict.fromkeys(job.model)] or repository.models
    if len(named) == 1:
        _ = named[0].config  # If that cannot be read, there is no need to begin.
    if job.model or len(named) == 1:
        return tuple(named)
    chosen = []
    for model in repository.models:
        if reason := _refusal(model):
            progress.note(f"{model.name} is left out: {reason}")
        else:
            chosen.append(model)
    if not chosen:
        raise TuningError(f"{job.repository}: none of its models can be tuned")
    return tuple(chosen)


def _refusal(model: ModelFolder) -> str | None:
    try:
        return why_not_tunable(model.config.proto) if model.config else None
    except ConfigError:
        return None  # It has its turn, and fails in it: the others need not.


@dataclass(frozen=True)
class _Run:
    """What the models of a run share."""

    job: TuneJob
    out: RunFolder
    spec: SpaceSpec
    machine: Machine
    launcher: Launcher
    repository: StagedRepository
    progress: Progress

    def tune(self, model: ModelFolder) -> ModelOutcome:
        """Search the candidates of one model until the search has an end."""
        study = Study.create_or_resume(self.out.database, self._identity(model))
        self.progress.model_began(model.name, study=study, budget_s=self.job.budget)
        try:
            ended = _Search(self, model, study).run()
        except KeyboardInterrupt:
            if study.trials:
                self.progress.model_ended(self._outcome(study, "interrupted"))
            raise InterruptedRunError(f"interrupted; go on with --resume --out {self.out.path}") from None
        outcome = self._outcome(study, ended)
        self.progress.model_ended(outcome)
        return outcome

    def _outcome(self, study: Study, ended: str) -> ModelOutcome:
        return ModelOutcome(self.out, study.identity.model, study, recommend(study.trials, self.job.slo), ended)

    def _identity(self, model: ModelFolder) -> Identity:
        return Identity(
            model=model.name,
            repository=str(self.job.repository.resolve()),
            files=model.fingerprint(),
            config=model.config.text if model.config else "",
            slo=self.job.slo,
            space=self.spec.model_dump_json(by_alias=True),
            shape=dict(self.job.shape),
            server=self.launcher.description,
            machine=str(self.machine),
            seed=self.job.seed,
        )


class _Search:
    """The search of one model."""

    def __init__(self, run: _Run, model: ModelFolder, study: Study) -> None:
        self._run = run
        self._model = model
        self._study = study
        self._began = time.monotonic() - study.spent_s
        job = run.job
        self._stopping = Stopping(budget_s=job.budget, trials=job.trials)
        self._bench = Bench(
            launcher=run.launcher,
            repository=run.repository,
            model=model.name,
            shapes=job.shape,
            slo=job.slo,
            rules=replace(_SWEEP_RULES, percentile=job.slo.percentile),
            max_concurrency=job.max_concurrency,
            seed=job.seed,
        )

    def run(self) -> str:
        """Measure the baseline and candidate after candidate. Returns why the search ended."""
        space = self._space(self._study.trials[0]) if self._study.trials else self._measure_baseline()
        for name, reason in space.left_out.items():
            self._run.progress.note(f"{name} does not vary: {reason}")
        sampler = TpeSampler(space, self._run.job.seed)
        proposals = Proposals(space, self._study, sampler)
        while not (ended := self._end()):
            if (assignment := proposals.next()) is None:
                return "every candidate has been measured"
            self._store(self._trial(space.candidate(assignment)), space)
        return ended

    def _measure_baseline(self) -> SearchSpace:
        folder_config = self._model.config or ModelConfig.parse("", f"{self._model.name}/config.pbtxt")
        result = self._trial(Candidate({}, folder_config))
        if not result.curve:
            reason = result.failure.message if result.failure else "no load level could be measured"
            raise TuningError(f"model {self._model.name!r} does not work as it is: {reason}")
        space = self._space(result)
        self._store(result.model_copy(update={"parameters": space.baseline}), space)
        return space

    def _space(self, baseline: TrialResult) -> SearchSpace:
        """The search space, fitted to what the server made of the user's config."""
        effective = ModelConfig.parse(baseline.effective_config or "", f"{self._model.name} as the server completed it")
        # A model that leaves all to the server is tuned from what the server makes of it.
        return SearchSpace.build(self._run.spec, self._model.config or effective, effective, self._run.machine)

    def _trial(self, candidate: Candidate) -> TrialResult:
        number = len(self._study.trials)
        self._run.progress.trial_began(number, str(candidate))
        return run_trial(
            self._bench,
            candidate,
            number,
            self._run.out.trial(self._model.name, number),
            limits=self._limits(),
            progress=self._run.progress,
        )

    def _store(self, result: TrialResult, space: SearchSpace) -> None:
        self._study.add(result, space)
        standing = write_results(self._run.out, self._study)
        self._run.progress.trial_ended(result, standing)

    def _end(self) -> str | None:
        """Why to launch no further candidate, if so."""
        return self._stopping.reason(
            spent_s=time.monotonic() - self._began,
            next_trial_s=(self._study.trials[0].launch_s or 0) + _FIRST_LEVELS_S,
            hypervolumes=self._study.hypervolumes,
        )

    def _limits(self) -> Limits:
        """On the next trial: by what the baseline took; for the baseline itself, by the size of the model's files."""
        until = self._began + self._run.job.budget
        known = self._study.trials[0] if self._study.trials else None
        if known:
            launch_s = _PATIENCE_S + _SLOWER * (known.launch_s or 0)
            first_answer_s = hangs_after_s(known.first_answer_s or 0)
        else:
            launch_s = first_launch_s(self._model)
            first_answer_s = FIRST_ANSWER_S
        return Limits(self._run.job.launch_timeout or launch_s, first_answer_s, until)
