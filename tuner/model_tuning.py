"""The tuning of one model: baseline, candidate after candidate, and the end of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from tuner import deadlines
from tuner.errors import JobError, ServerError, TuningError
from tuner.finals.certify import certify
from tuner.finals.verify import Terms, verify
from tuner.job import TuneJob
from tuner.load.loads import Load
from tuner.machine import Machine
from tuner.measure.gpu import Gpus
from tuner.measure.gpu_selection import surely_uses_gpus
from tuner.measure.level import LevelRules
from tuner.measure.points import OperatingPoint
from tuner.models.config import ModelConfig
from tuner.models.repository import ModelFolder
from tuner.models.staging import StagedRepository
from tuner.progress import Progress
from tuner.report.files import write_results
from tuner.run_folder import RunFolder
from tuner.search.certified import CertifiedRate
from tuner.search.gpu_memory import MemoryEstimate
from tuner.search.proposals import Proposals
from tuner.search.samplers import TpeSampler
from tuner.search.stopping import Stopping
from tuner.search.study import Study
from tuner.servers.protocols import Launcher
from tuner.space.candidate import Candidate, in_words
from tuner.space.space import SearchSpace
from tuner.space.spec import SpaceSpec
from tuner.trial import Bench, Limits, TrialResult, launch_again, measure_again, run_trial

# A search is better off with twice the candidates than with intervals half as wide.
_SWEEP_RULES = LevelRules(throughput_precision=0.05, latency_precision=0.15, max_s=1.5)
# A verified number is to hold later, too: each of its rounds sees some seconds of the machine, more near a limit.
_VERIFY_RULES = LevelRules(min_s=1.5, max_s=3.0)
# Arrivals by chance need longer to show their worst.
_CERTIFY_RULES = LevelRules(min_s=2.0, max_s=4.0)
# The shares of the budget at which the search ends, and the rounds of the finalists; the rest is for certifying.
_SEARCH_SHARE, _VERIFY_SHARE = 0.7, 0.92
# What a trial needs besides its launch to tell anything: the first load levels.
_FIRST_LEVELS_S = 2.0


@dataclass(frozen=True)
class Workshop:
    """What the models of a run share.

    Attributes:
        repository: Our own copy of the user's.
    """

    job: TuneJob
    out: RunFolder
    spec: SpaceSpec
    machine: Machine
    launcher: Launcher
    gpus: Gpus
    repository: StagedRepository
    progress: Progress


class ModelTuning:
    """The tuning of one model, from what its study holds to the end.

    Args:
        shop: What it works with.
        model: The model.
        study: Where its trials are, and go.
    """

    def __init__(self, shop: Workshop, model: ModelFolder, study: Study) -> None:
        self._shop = shop
        self._model = model
        self._study = study
        self._began = time.monotonic() - study.spent_s
        job = shop.job
        self._stopping = Stopping(budget_s=(_SEARCH_SHARE if job.verify else 1.0) * job.budget, trials=job.trials)
        self._bench = Bench(
            launcher=shop.launcher,
            repository=shop.repository,
            model=model.name,
            options=job,
            slo=job.slo,
            rules=replace(_SWEEP_RULES, percentile=job.slo.percentile),
            max_concurrency=job.max_concurrency,
            gpus=shop.gpus,
            max_gpu_memory=job.max_gpu_memory,
        )

    def run(self) -> str:
        """Search, verify what was found, and certify a rate for it. Returns why the search ended."""
        ended = self._search()
        if self._shop.job.verify:
            self._verify()
            self._certify()
        # What is best is known here, and no other server runs: whatever else is to be measured of it goes here.
        return ended

    def _verify(self) -> None:
        """Launch the finalists again, in rounds."""
        study, job, bench = self._study, self._shop.job, self._with_rules(_VERIFY_RULES)
        terms = Terms(
            slo=job.slo,
            until=self._began + _VERIFY_SHARE * job.budget,
            launch_s=self._ready_s + bench.rules.min_s,
            seed=job.seed,
            max_gpu_memory=job.max_gpu_memory,
        )

        def measure(trial: TrialResult, load: Load, number: int) -> OperatingPoint:
            folder = self._verified / f"{trial.number:03d}-{load.level:g}-{number}"
            return measure_again(bench, trial.config, load, folder, limits=self._limits(until=terms.until))

        note = self._shop.progress.note
        verify(study.trials, measure, terms, verified=study.verified, keep=study.add_verified, note=note)

    def _certify(self) -> None:
        """Find a rate of Poisson arrivals that the best config surely serves."""
        best, known, until = self._study.recommendation.best, self._study.certified, self._began + self._shop.job.budget
        if best is None or (known and known.launched):
            return
        about = CertifiedRate(trial=best.trial.number, load=best.point.load)
        if not best.verified or time.monotonic() + self._ready_s > until:
            reason = "there was no time left" + (" to verify it" if not best.verified else "")
            self._study.certify(about.model_copy(update={"reason": reason, "launched": False}))
            return
        self._shop.progress.note(f"certifying trial {best.trial.number} under Poisson arrivals")
        bench, limits = self._with_rules(_CERTIFY_RULES), self._limits(until=until)
        try:
            with launch_again(bench, best.trial.config, self._verified / "certified", limits=limits) as session:
                per_s = best.point.throughput.value / best.point.batch_size
                point = certify(session.measure, per_s, slo=bench.slo, until=until)
        except ServerError as error:
            point = None
            told = f"{error.cause.value}: {error}"
        else:
            at = f"surely holds {bench.slo}" if bench.slo.root else "was kept up with"
            told = f"no rate that was tried {at}"
        self._study.certify(about.model_copy(update={"point": point, "reason": None if point else told}))

    def _with_rules(self, rules: LevelRules) -> Bench:
        """For measuring again, when limits are tested."""
        slo = self._shop.job.slo
        return replace(self._bench, rules=replace(rules, percentile=slo.percentile, slo=slo))

    @property
    def _verified(self) -> Path:
        """Where the logs of servers go that were launched again."""
        return self._shop.out.model(self._model.name) / "verified"

    @property
    def _ready_s(self) -> float:
        """How long the baseline took from its launch to its first answer."""
        baseline = self._study.trials[0]
        return (baseline.launch_s or 0) + (baseline.first_answer_s or 0)

    def _search(self) -> str:
        """Measure the baseline and candidate after candidate."""
        self._shop.gpus.warn_if_busy(self._folder_config.proto)
        space = self._space(self._study.trials[0]) if self._study.trials else self._measure_baseline()
        for name, reason in space.left_out.items():
            self._shop.progress.note(f"{name} does not vary: {reason}")
        sampler = TpeSampler(space, self._shop.job.seed)
        proposals = Proposals(space, self._study, sampler)
        while not (ended := self._end()):
            if (assignment := proposals.next()) is None:
                return f"every candidate has been measured{' or skipped' * bool(proposals.skipped)}"
            if refusal := self._memory(space).refusal(assignment):
                self._shop.progress.note(f"skipped: {in_words(assignment)}: {refusal}")
                proposals.skip(assignment)
            else:
                self._store(self._trial(space.candidate(assignment)), space)
        return ended

    def _memory(self, space: SearchSpace) -> MemoryEstimate:
        job = self._shop.job
        return MemoryEstimate(space, self._study.trials, limit=job.max_gpu_memory, batch_size=job.batch_size)

    @property
    def _folder_config(self) -> ModelConfig:
        """What the model's folder says, which may be nothing."""
        return self._model.config or ModelConfig.parse("", f"{self._model.name}/config.pbtxt")

    def _measure_baseline(self) -> SearchSpace:
        result = self._trial(Candidate({}, self._folder_config))
        if not result.curve:
            reason = result.failure.message if result.failure else "no load level could be measured"
            raise TuningError(f"model {self._model.name!r} does not work as it is: {reason}")
        self._check_limit(result)
        space = self._space(result)
        self._store(result.model_copy(update={"parameters": space.baseline}), space)
        return space

    def _check_limit(self, baseline: TrialResult) -> None:
        """See that a limit on GPU memory can be held."""
        if self._shop.job.max_gpu_memory is None or baseline.gpu_memory is not None:
            return
        effective = ModelConfig.parse(baseline.effective_config or "", "the effective config")
        if surely_uses_gpus(effective.proto) or any(point.gpu for point in baseline.curve):
            raise JobError("--max-gpu-memory: NVML does not tell how much memory of the GPU is in use")
        self._shop.progress.note(f"{self._model.name} uses no GPU, so --max-gpu-memory leaves it alone")

    def _space(self, baseline: TrialResult) -> SearchSpace:
        """The search space, fitted to what the server made of the user's config."""
        effective = ModelConfig.parse(baseline.effective_config or "", f"{self._model.name} as the server completed it")
        # A model that leaves all to the server is tuned from what the server makes of it.
        return SearchSpace.build(self._shop.spec, self._model.config or effective, effective, self._shop.machine)

    def _trial(self, candidate: Candidate) -> TrialResult:
        number = len(self._study.trials)
        self._shop.progress.trial_began(number, str(candidate))
        return run_trial(
            self._bench,
            candidate,
            number,
            self._shop.out.trial(self._model.name, number),
            limits=self._limits(until=self._began + self._stopping.budget_s),
            progress=self._shop.progress,
        )

    def _store(self, result: TrialResult, space: SearchSpace) -> None:
        self._study.add(result, space)
        standing = write_results(self._shop.out, self._study)
        self._shop.progress.trial_ended(result, standing)

    def _end(self) -> str | None:
        """Why to launch no further candidate, if so."""
        return self._stopping.reason(
            spent_s=time.monotonic() - self._began,
            next_trial_s=(self._study.trials[0].launch_s or 0) + _FIRST_LEVELS_S,
            hypervolumes=self._study.hypervolumes,
        )

    def _limits(self, *, until: float) -> Limits:
        """On the next trial: by what the baseline took; for the baseline itself, by the size of the model's files."""
        known = self._study.trials[0] if self._study.trials else None
        own = deadlines.launch_s(known.launch_s or 0) if known else deadlines.first_launch_s(self._model.size_bytes())
        return Limits(
            launch_s=self._shop.job.launch_timeout or own,
            first_answer_s=deadlines.answer_s(known.first_answer_s or 0) if known else deadlines.FIRST_ANSWER_S,
            until=until,
        )
