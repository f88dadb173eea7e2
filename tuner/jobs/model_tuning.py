"""The tuning of one model: the baseline, the search, and the finals."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count

from tuner.cluster.dispatcher import Dispatcher, Finished
from tuner.cluster.executor import Executor
from tuner.cluster.slot_context import SlotContext
from tuner.cluster.slots import Slot
from tuner.config.beside import copy_hint
from tuner.config.config import ModelConfig
from tuner.config.repository import ModelFolder
from tuner.core import deadlines
from tuner.core.errors import Cause, JobError, TuningError, shortened
from tuner.core.loads import Concurrency
from tuner.core.machine import Machine
from tuner.core.quantities import format_duration
from tuner.jobs.explain import explain
from tuner.jobs.model_finals import ModelFinals
from tuner.jobs.output_check import Examined, OutputCheck
from tuner.jobs.progress import Progress
from tuner.jobs.warm_up import measure_warm_up, warm_up_takes_s
from tuner.measure.gpu_selection import requires_gpus
from tuner.measure.rules import LevelRules
from tuner.measure.trial import TrialResult
from tuner.measure.work import (
    FAILURE,
    Failure,
    Limits,
    LoadPlan,
    Loads,
    Outcome,
    Sweep,
    TrialTerms,
    Work,
)
from tuner.options.tune_job import TuneJob
from tuner.outputs.golden import GoldenOutputs
from tuner.recommend.front import rivals
from tuner.recommend.recommend import Recommendation
from tuner.results.result_files import write_results
from tuner.search.choose_sampler import choose_sampler
from tuner.search.goal import Goal
from tuner.search.gpu_memory import MemoryEstimate
from tuner.search.proposals import Proposals, ServedConfigs
from tuner.search.refusals import Refusals
from tuner.search.samplers import FirstThen, NoMore, Pending, Sampler
from tuner.search.stopping import Stopping
from tuner.space.candidate import Assignment, Candidate, in_words
from tuner.space.conditions import Terms
from tuner.space.originals import originals_of
from tuner.space.space import SearchSpace
from tuner.space.spec import SpaceSpec
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study
from tuner.study.warm_start import WarmStart

# Wide intervals: more candidates help a search more than precise ones.
_SWEEP_RULES = LevelRules(throughput_precision=0.05, latency_precision=0.15, max_s=1.5, narrow_looks=1)
# At a fixed rate, one load takes the time of a sweep.
_RATE_RULES = LevelRules(latency_precision=0.1, min_s=2.0, max_s=6.0)
# Shares of the budget at which the search ends and verification ends; the rest is for certifying.
_SEARCH_SHARE, _VERIFY_SHARE = 0.7, 0.92
# The share of the budget that one launch which builds engines may take.
_BUILD_SHARE = 0.3
# The least time for a useful sweep: the first load levels, in seconds.
_FIRST_LEVELS_S = 2.0
# The least deadline, in seconds.
_LEAST_S = 0.1


@dataclass(frozen=True)
class RunContext:
    """The context that all models of a run share.

    Attributes:
        job: The job.
        out: The run folder.
        spec: The search space.
        executor: Carries out launches.
        progress: Receives the events of the run.
        models: Names of the models to tune.
        here: What launches need in this process; None: they are carried out elsewhere.
    """

    job: TuneJob
    out: RunFolder
    spec: SpaceSpec
    executor: Executor
    progress: Progress
    models: tuple[str, ...] = ()
    here: SlotContext | None = None

    @property
    def machine(self) -> Machine:
        """What a slot of the reference host has."""
        return self.executor.hosts[0].machine

    @property
    def description(self) -> str:
        """The Triton of the reference host, and how it is launched."""
        return self.executor.hosts[0].description


# As launchers describe a Triton whose version they know.
_VERSION = re.compile(r"\bTriton (\d+\.\d+\.\d+)")


def terms_of(job: TuneJob, server: str) -> Terms:
    """What a job and its server allow.

    Args:
        job: The job.
        server: The launcher's description of the server.
    """
    version = _VERSION.search(server)
    return Terms(
        version=version[1] if version else "",
        arguments=job.arguments,
        relaunches=job.url is None and job.isolation != "reload",
        is_remote=job.url is not None,
        shared_memory=job.shared_memory,
        allow_numerics=job.allow_numerics,
    )


def trial_terms_of(context: RunContext, model: str, rules: LevelRules) -> TrialTerms:
    """The terms of all launches of one model of a run, with rules for its SLO and precision."""
    job = context.job
    return TrialTerms(
        model=model,
        options=job,
        rules=replace(rules, slo=job.slo, objective=job.objective).to(job.precision),
        max_concurrency=job.max_concurrency,
        max_gpu_memory=job.max_gpu_memory,
        shapes_elsewhere=len(context.models) > 1,
        objective=job.objective,
    )


@dataclass(frozen=True)
class _Trial:
    """A trial under way.

    Attributes:
        number: Its number.
        candidate: Its candidate.
        assignment: Its assignment; empty for the baseline.
        after: See `TrialResult`.
        beside: See `TrialResult`.
    """

    number: int
    candidate: Candidate
    after: tuple[int, ...] = ()
    beside: tuple[int, ...] = ()


class ModelTuning:
    """The tuning of one model, which continues from the trials of its study.

    Args:
        context: The context of the run.
        model: The model.
        study: Its study, with the trials so far.
        now: The clock, in seconds.
    """

    def __init__(
        self, context: RunContext, model: ModelFolder, study: Study, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._context = context
        self._model = model
        self._study = study
        self._now = now
        # Time that earlier runs of the study spent counts towards the budget.
        self._began = now() - study.took_s
        self._counted = now()
        job = context.job
        self._stopping = Stopping(budget_s=(_SEARCH_SHARE if job.verify else 1.0) * job.budget, trials=job.trials)
        if job.sampler == "grid":
            # A grid search ends only with its last candidate.
            self._stopping = replace(self._stopping, patience=sys.maxsize)
        rules = _SWEEP_RULES if job.objective.rate is None else _RATE_RULES
        self._terms = trial_terms_of(context, model.name, rules)
        self._dispatcher = Dispatcher[_Trial](context.executor, context.progress.note, now=now)
        self._numbers = count(max((trial.number for trial in study.trials), default=-1) + 1)
        self._finals = ModelFinals(
            job,
            study,
            self._terms,
            context.executor,
            context.out.model(model.name) / "verified",
            lambda until: self._limits(until=until, slow=self._launches_slowly),
            self._stored_more,
            context.progress,
            self._count,
        )
        self._served = ServedConfigs()
        self._refused: set[str] = set()
        self._outputs = OutputCheck(context.out.model(model.name), study.identity, context.progress.note, self._remark)

    def _remark(self, text: str) -> None:
        """Show a remark on the results once, and store it for the end of the run and the report."""
        if self._study.remark(text):
            self._context.progress.note(f"{self._model.name}: {text}")

    def _write(self) -> Recommendation:
        """Write the result files from the stored study, so that they agree with it even after a kill."""
        return write_results(self._context.out, self._study)

    def run(self) -> str:
        """Search, verify, certify and, with `--explain`, explain. Returns why the search ended."""
        self._clear_up()
        job, ended = self._context.job, self._search()
        if job.verify:
            self._end_well(verified_by=self._began + _VERIFY_SHARE * job.budget, certified_by=self._began + job.budget)
        if job.explain:
            explain(
                self._study, run_without=self._run_without, verify=self._verify_anew, progress=self._context.progress
            )
        return ended

    def _clear_up(self) -> None:
        """Remove the folders of trials that a killed run did not store, and rewrite the result files."""
        if not self._study.trials:
            return
        out, model = self._context.out, self._model.name
        stored = {trial.number for trial in self._study.trials}
        for folder in out.trial(model, 0).parent.glob("*"):
            if folder.name.isdigit() and int(folder.name) not in stored:
                shutil.rmtree(folder, ignore_errors=True)
        self._write()

    def _verify_anew(self) -> None:
        """Verify again, after the explanation has launched more candidates."""
        if self._context.job.verify:
            until = self._now() + (1 - _SEARCH_SHARE) * self._context.job.budget
            self._end_well(verified_by=until, certified_by=until)

    def _end_well(self, *, verified_by: float, certified_by: float) -> None:
        """Verify, certify, and measure a warm-up, each with a deadline (`time.monotonic`)."""
        self._counted = self._now()
        try:
            takes_s = warm_up_takes_s(self._study)
            # A warm-up may take up to half of the time that is left.
            kept_s = takes_s if takes_s <= (certified_by - self._now()) / 2 else 0.0
            self._finals.verify(until=verified_by - kept_s)
            self._finals.certify(until=certified_by - kept_s)
            self._measure_warm_up(until=certified_by)
        finally:
            self._count()

    def _measure_warm_up(self, *, until: float) -> None:
        """Measure what a warm-up of the best config saves, if its first answer was slow."""
        context, study = self._context, self._study
        folder = context.out.model(self._model.name) / "warm-up"
        measure_warm_up(
            study,
            self._terms,
            context.executor,
            folder,
            lambda by: self._limits(until=by),
            context.progress,
            until=until,
        )
        self._stored_more()

    def _stored_more(self) -> None:
        """Store the time spent, and write the result files, which include it."""
        self._count()
        self._context.progress.results_changed(self._write())

    def _count(self) -> None:
        """Store the time spent on verifying so far, so that it counts in a resumed run."""
        now = self._now()
        self._study.add_verifying_s(now - self._counted)
        self._counted = now

    def _run_without(self, wanted: Assignment, load: Concurrency | None) -> None:
        """Run a trial for the explanation."""
        space = self._space(self._study.trials[0])
        assignment = space.normalize(wanted)
        candidate = space.candidate(assignment)
        if refusal := self._refusal(candidate, space):
            self._context.progress.note(f"skipped: {in_words(assignment, space.baseline)}: {refusal}")
            return
        limits = self._limits(
            until=self._now() + self._stopping.budget_s, slow=space.launches_slowly(candidate.parameters)
        )
        # It is not cut short where others are better, since it is compared with the best.
        trial = self._new_trial(candidate)
        work = self._work(trial, space, Sweep(also=load), limits, self._terms)
        if result := self._finished(self._run(trial, work, space)):
            self._store(result, space)

    def _search(self) -> str:
        """Measure the baseline and then candidates. Returns why the search ended."""
        space = self._space(self._study.trials[0]) if self._study.trials else self._measure_baseline()
        for name, reason in space.left_out.items():
            self._context.progress.note(f"{name} does not vary: {reason}")
        for note in space.notes:
            self._context.progress.note(note)
        warm_start = self._warm_start(space)
        proposals = Proposals(space, self._study, FirstThen(warm_start.first, self._sampler(space)))
        if not self._outputs.recall():
            self._record_outputs_again()
        self._context.progress.phase_began("search")
        while True:
            ended = self._launch_more(proposals, space)
            if ended and not self._dispatcher.under_way:
                return ended
            finished = self._dispatcher.wait()
            if finished and (result := self._finished(finished)):
                self._store(result, space)

    def _launch_more(self, proposals: Proposals, space: SearchSpace) -> str | None:
        """Launch a candidate on each free slot. Returns why there is none for a slot; None: all slots have work."""
        for slot in self._dispatcher.free():
            if ended := self._end():
                return ended
            candidate = self._proposed(proposals, space)
            if isinstance(candidate, NoMore):
                return candidate.reason
            trial = self._new_trial(candidate)
            limits = self._limits_of_search(slow=space.launches_slowly(candidate.parameters))
            front = rivals(self._study.recommendation.front, self._terms.rules.percentile, self._terms.objective)
            terms = replace(self._terms, rules=replace(self._terms.rules, rivals=front))
            self._begin(trial, self._work(trial, space, Sweep(), limits, terms), slot, space)
        return None

    def _proposed(self, proposals: Proposals, space: SearchSpace) -> Candidate | NoMore:
        """The next candidate that is worth a launch."""
        while True:
            assignment = proposals.next([Pending(t.number, t.candidate.parameters) for t in self._dispatcher.under_way])
            if isinstance(assignment, NoMore):
                return assignment
            candidate = space.candidate(assignment)
            if not (refusal := self._refusal(candidate, space)):
                return candidate
            if refusal not in self._refused:
                # Candidates skipped for the same reason are noted once.
                self._context.progress.note(f"skipped: {in_words(assignment, space.baseline)}: {refusal}")
                self._refused.add(refusal)
            proposals.skip(assignment)

    def _new_trial(self, candidate: Candidate) -> _Trial:
        """A trial of a candidate, with the next number."""
        finished = tuple(trial.number for trial in self._study.trials)
        return _Trial(
            next(self._numbers), candidate, finished, tuple(each.number for each in self._dispatcher.under_way)
        )

    def _work(self, trial: _Trial, space: SearchSpace, plan: LoadPlan, limits: Limits, terms: TrialTerms) -> Work:
        self._served.read(self._study.trials)
        examine = self._outputs.of_candidate(space, trial.candidate, self._served.frozen())
        return Work(terms, trial.candidate.patch, plan, limits, examine)

    def _begin(self, trial: _Trial, work: Work, slot: Slot, space: SearchSpace | None) -> None:
        own = trial.candidate.parameters
        words = in_words(own, space.baseline if space else own)
        progress = self._context.progress
        progress.trial_began(trial.number, words)
        folder = self._context.out.trial(self._model.name, trial.number)
        self._dispatcher.start(trial, work, slot, folder, progress)

    def _run(self, trial: _Trial, work: Work, space: SearchSpace | None) -> Finished[_Trial]:
        """Run one trial, while no other is under way."""
        self._begin(trial, work, self._dispatcher.free()[0], space)
        return self._dispatcher.outcome()

    def _finished(self, finished: Finished[_Trial]) -> TrialResult | None:
        """The result of a trial that has ended; None if it does not count."""
        trial, outcome = finished.piece.key, finished.outcome
        folder = self._context.out.trial(self._model.name, trial.number)
        if outcome is None:  # its hosts were lost
            shutil.rmtree(folder, ignore_errors=True)
            return None
        result = self._result(trial, outcome)
        if self._ended_with_budget(result):
            shutil.rmtree(folder, ignore_errors=True)
            return None
        if isinstance(outcome.examined, Examined):
            self._outputs.checked(outcome.examined)
            result = result.model_copy(update={"output_difference": outcome.examined.difference})
        return self._unless_duplicate(result, trial.candidate)

    def _result(self, trial: _Trial, outcome: Outcome) -> TrialResult:
        several = len(self._context.executor.slots) > 1
        since_s = max(0.0, self._now() - self._began - self._study.took_s)
        return TrialResult.of(trial.candidate, trial.number, outcome).model_copy(
            update={
                "after": trial.after,
                "beside": trial.beside,
                "elapsed_s": since_s if several else None,
                "host": outcome.host if len(self._context.executor.hosts) > 1 else "",
            }
        )

    def _unless_duplicate(self, result: TrialResult, candidate: Candidate) -> TrialResult:
        """The result, as a failure if a trial that was under way beside it has the same effective config."""
        self._served.read(self._study.trials)
        if result.failure is not None or result.effective_config is None or not result.beside:
            return result
        effective = ModelConfig.parse(result.effective_config, "the effective config")
        if (same := self._served.same_as(candidate, effective)) is None:
            return result
        failure = Failure(cause=Cause.DUPLICATE, message=f"same effective config as trial {same}")
        return result.model_copy(update={"failure": failure, "curve": ()})

    def _ended_with_budget(self, result: TrialResult) -> bool:
        """Whether the end of the budget cut a trial off, so that its result is dropped."""
        failure = result.failure
        if result.curve or not failure or failure.cause not in {Cause.TIMED_OUT, Cause.HUNG} or self._left_s > 0:
            return False
        self._context.progress.note(f"trial {result.number} does not count: the budget ended before its first answer")
        return True

    @property
    def _left_s(self) -> float:
        """Seconds until the whole budget ends, including the finalists' part."""
        return self._began + self._context.job.budget - self._now()

    def _refusal(self, candidate: Candidate, space: SearchSpace) -> str | None:
        """Why to skip a candidate; None to launch it."""
        self._served.read(self._study.trials)
        if (same := self._served.same_as(candidate)) is not None:
            return f"same effective config as trial {same}"
        by_trials = Refusals(space, self._study.trials).refusal(candidate.parameters)
        return by_trials or self._memory(space).refusal(candidate.parameters)

    def _warm_start(self, space: SearchSpace) -> WarmStart:
        """Take over trials and candidates of the earlier run that `--warm-start` names."""
        run_dir, study = self._context.job.warm_start, self._study
        if run_dir is None:
            return WarmStart()
        warm_start = WarmStart.of(run_dir, study.identity, space)
        seen = [space.recall(trial.parameters) for trial in study.trials]
        new = [trial for trial in warm_start.trials if trial.parameters not in seen]
        for trial in new:
            study.add(trial.model_copy(update={"number": next(self._numbers)}), space)
        note = self._context.progress.note
        if warm_start.differs:
            count = len(warm_start.first)
            note(f"{run_dir}: measured with other {warm_start.differs}; relaunching its {count} best candidates first")
        elif not warm_start.trials:
            note(f"{run_dir}: no trial of model {study.identity.model!r} can be used here")
        elif new:
            note(f"{run_dir}: reusing {len(new)} trials, measured under the same conditions")
        return warm_start

    def _sampler(self, space: SearchSpace) -> Sampler:
        job = self._context.job
        if job.sampler == "grid":
            count = sum(1 for _ in space.assignments())
            took_s = self._study.trials[0].wall_s
            self._context.progress.note(
                f"grid: {count} candidates take about {format_duration(count * took_s)}; "
                f"the search has {format_duration(self._stopping.budget_s)} of the budget"
            )
        goal = Goal(job.slo, job.batch_size, job.max_concurrency, job.max_gpu_memory, job.objective)
        return choose_sampler(job.sampler, space, job.seed, goal, self._context.progress.note)

    def _memory(self, space: SearchSpace) -> MemoryEstimate:
        job = self._context.job
        return MemoryEstimate(space, self._study.trials, limit=job.max_gpu_memory, batch_size=job.batch_size)

    @property
    def _folder_config(self) -> ModelConfig:
        """The config in the model's folder; empty if there is none."""
        return self._model.config or ModelConfig.parse("", f"{self._model.name}/config.pbtxt")

    @property
    def _own(self) -> Candidate:
        """The baseline."""
        return Candidate({}, self._folder_config, originals_of(self._context.spec, self._model, self._context.job))

    def _measure_baseline(self) -> SearchSpace:
        self._context.progress.phase_began("baseline")
        result = self._run_baseline(next(self._numbers))
        if result.curve and result.failure:
            result = self._baseline_again(result)
        if not result.curve:
            reason = result.failure.message if result.failure else "no load level could be measured"
            message = shortened(reason)
            if message != reason:
                message = f"{message}; full text: {self._context.out.trial(self._model.name, result.number) / FAILURE}"
            here = self._context.here
            hint = copy_hint(reason, here.placed) if here and self._context.job.url is None else ""
            raise TuningError(f"model {self._model.name!r}: the baseline failed: {message}{hint}")
        self._check_limit(result)
        self._check_objective(result)
        space = self._space(result)
        self._store(result.model_copy(update={"parameters": space.baseline, "others": space.originals}), space)
        return space

    def _run_baseline(self, number: int) -> TrialResult:
        """Launch the baseline, and record its outputs."""
        trial = _Trial(number, self._own)
        limits = self._limits_of_search(slow=False)
        finished = self._run(trial, self._work_of_baseline(Sweep(), limits), None)
        if finished.outcome is None:
            raise TuningError(f"model {self._model.name!r}: the hosts of the baseline were lost")
        if isinstance(finished.outcome.examined, GoldenOutputs):
            self._outputs.recorded(finished.outcome.examined)
        return self._result(trial, finished.outcome)

    def _work_of_baseline(self, plan: LoadPlan, limits: Limits) -> Work:
        return Work(self._terms, self._own.patch, plan, limits, self._outputs.of_baseline, is_baseline=True)

    def _baseline_again(self, failed: TrialResult) -> TrialResult:
        """Measure the baseline once more if it failed midway, since all candidates are compared with it."""
        why = f" ({failed.failure.cause.value}: {shortened(failed.failure.message)})" if failed.failure else ""
        self._context.progress.note(f"the baseline failed midway{why}; measuring it once more")
        # The next attempt uses the folder; the log of the failed one is kept beside it.
        folder = self._context.out.trial(self._model.name, failed.number)
        beside = folder.with_name(f"{folder.name}-failed")
        shutil.rmtree(beside, ignore_errors=True)  # left by a run that was killed during its second attempt
        folder.replace(beside)
        again = self._run_baseline(failed.number)
        return again if again.curve else failed

    def _check_limit(self, baseline: TrialResult) -> None:
        """Check that GPU memory can be measured if it has a limit.

        Raises:
            JobError: GPU memory has a limit, but cannot be measured.
        """
        if self._context.job.max_gpu_memory is None or baseline.gpu_memory is not None:
            return
        effective = ModelConfig.parse(baseline.effective_config or "", "the effective config")
        if requires_gpus(effective.proto) or any(point.gpu for point in baseline.curve):
            raise JobError("--max-gpu-memory: NVML does not report the GPU memory in use")
        self._context.progress.note(f"{self._model.name} uses no GPU: --max-gpu-memory has no effect on it")

    def _check_objective(self, baseline: TrialResult) -> None:
        """Check that the objective can be measured.

        Raises:
            JobError: it needs a GPU, or the power of one, which is unknown.
        """
        objective = self._context.job.objective
        if any(point.value(objective) for point in baseline.curve):
            return
        uses_gpu = any(point.gpu for point in baseline.curve)
        why = f"NVML does not report the power of the GPU of {self._model.name}" if uses_gpu else ""
        reason = why or f"{self._model.name} uses no GPU of this machine that NVML reports"
        raise JobError(f"--maximize {objective.name}: {reason}; use --maximize throughput")

    def _space(self, baseline: TrialResult) -> SearchSpace:
        """The search space, built from the effective config of the baseline."""
        effective = ModelConfig.parse(baseline.effective_config or "", f"{self._model.name} as the server completed it")
        context, stored = self._context, self._study.composed_space
        space = SearchSpace.build(
            stored or context.spec,
            self._model.config,
            effective,
            context.machine,
            batch_size=context.job.batch_size,
            model=self._model.name,
            originals=baseline.others,
            terms=None if stored else terms_of(context.job, context.description),
        )
        if stored is None:
            self._study.compose(space.spec)
        return space

    def _record_outputs_again(self) -> None:
        """Relaunch the baseline of a resumed run to record the golden outputs that were lost."""
        limits = self._limits(until=self._began + self._context.job.budget)
        folder = self._context.out.model(self._model.name) / "recorded"
        work = self._work_of_baseline(Loads(()), limits)
        outcome = self._dispatcher.carry_out(_Trial(0, self._own), work, folder)
        if outcome.failure:
            reason = outcome.failure.message
            raise TuningError(f"model {self._model.name!r}: the baseline no longer works: {reason}")
        self._outputs.recorded(outcome.examined)

    def _store(self, result: TrialResult, space: SearchSpace) -> None:
        self._study.add(result, space)
        self._context.progress.trial_ended(result, self._write())

    def _end(self) -> str | None:
        """Why the search ends now; None to go on."""
        launched = self._study.own_trials
        recent = list(zip(self._study.trials, self._study.hypervolumes, strict=True))[-launched:]
        return self._stopping.reason(
            launched=launched + len(self._dispatcher.under_way),
            spent_s=self._now() - self._began,
            next_trial_s=(self._study.trials[0].launch_s or 0) + _FIRST_LEVELS_S,
            # Launches without a measurement are not counted as launches without a gain.
            hypervolumes=[volume for trial, volume in recent if trial.curve],
        )

    def _limits_of_search(self, *, slow: bool) -> Limits:
        """The limits of the next trial of the search, which end with the budget."""
        limits = self._limits(until=self._began + self._stopping.budget_s, slow=slow)
        if not self._study.trials:
            return limits
        left_s = max(_LEAST_S, self._left_s)
        return replace(limits, launch_s=min(limits.launch_s, left_s), first_answer_s=min(limits.first_answer_s, left_s))

    def _limits(self, *, until: float, slow: bool = False) -> Limits:
        """The limits of a trial, from the baseline's times; for the baseline, from the size of the model's files.

        Args:
            until: When its measurement ends, by the clock.
            slow: Whether its launch may take minutes, as it builds engines.
        """
        baseline = self._study.trials[0] if self._study.trials else None
        own = (
            deadlines.launch_s(baseline.launch_s or 0)
            if baseline
            else deadlines.first_launch_s(self._model.size_bytes())
        )
        answer_s = deadlines.answer_s(baseline.first_answer_s or 0) if baseline else deadlines.FIRST_ANSWER_S
        if slow:
            build_s = min(deadlines.SLOW_LAUNCH_S, _BUILD_SHARE * self._context.job.budget)
            own, answer_s = max(own, build_s), max(answer_s, build_s)
        total_s = max(0.0, until - self._now())
        return Limits(launch_s=self._context.job.launch_timeout or own, first_answer_s=answer_s, total_s=total_s)

    @property
    def _launches_slowly(self) -> bool:
        """Whether the launch of any finalist may take minutes."""
        space = self._study.space
        return any(space.launches_slowly(trial.parameters) for trial in self._study.trials if trial.curve)
