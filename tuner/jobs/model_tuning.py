"""The tuning of one model: the baseline, the search, and the finals."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import replace

from tuner.cluster.dispatcher import Finished
from tuner.config.config import ModelConfig
from tuner.config.repository import ModelFolder
from tuner.core.loads import Concurrency
from tuner.core.quantities import format_duration
from tuner.jobs.baseline import Baseline
from tuner.jobs.budget import SEARCH_SHARE, VERIFY_SHARE, Budget
from tuner.jobs.explain import explain
from tuner.jobs.model_finals import ModelFinals
from tuner.jobs.output_check import OutputCheck
from tuner.jobs.run_context import RunContext, terms_of, trial_terms_of
from tuner.jobs.run_hosts import HostBaseline, RunHosts
from tuner.jobs.trial_launches import TrialLaunch, TrialLaunches
from tuner.jobs.warm_up import measure_warm_up, warm_up_takes_s
from tuner.measure.rules import LevelRules
from tuner.measure.trial import TrialResult
from tuner.measure.work import Sweep
from tuner.recommend.front import rivals
from tuner.recommend.recommend import Recommendation
from tuner.results.result_files import write_results
from tuner.search.choose_sampler import choose_sampler
from tuner.search.goal import Goal
from tuner.search.gpu_memory import MemoryEstimate
from tuner.search.proposals import Proposals
from tuner.search.refusals import Refusals
from tuner.search.samplers import FirstThen, NoMore, Sampler
from tuner.search.stopping import Stopping
from tuner.space.candidate import Assignment, Candidate, in_words
from tuner.space.space import SearchSpace
from tuner.study.study import Study
from tuner.study.warm_start import WarmStart

# Wide intervals: more candidates help a search more than precise ones.
_SWEEP_RULES = LevelRules(throughput_precision=0.05, latency_precision=0.15, max_s=1.5, narrow_looks=1)
# At a fixed rate, one load takes the time of a sweep.
_RATE_RULES = LevelRules(latency_precision=0.1, min_s=2.0, max_s=6.0)
# The least time for a useful sweep: the first load levels, in seconds.
_FIRST_LEVELS_S = 2.0


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
        self._context, self._model, self._study = context, model, study
        job, folder = context.job, context.out.model(model.name)
        self._budget = Budget(job, model, study, now)
        self._stopping = Stopping(budget_s=self._budget.search_s, trials=job.trials)
        if job.sampler == "grid":
            # A grid search ends only with its last candidate.
            self._stopping = replace(self._stopping, patience=sys.maxsize)
        self._terms = trial_terms_of(context, model.name, _SWEEP_RULES if job.objective.rate is None else _RATE_RULES)
        self._outputs = OutputCheck(folder, study.identity, context.progress.note, self._remark)
        self._launches = TrialLaunches(context, self._terms, study, self._budget, self._outputs)
        self._baseline = Baseline(context, model, self._terms, self._launches, self._budget, self._outputs)
        self._hosts = RunHosts(
            context.executor, self._launches.dispatcher, study, self._terms, self._outputs, context.out
        )
        self._finals = ModelFinals(
            context,
            study,
            self._terms,
            self._launches.dispatcher,
            folder / "verified",
            self._budget.limits_of_finalists,
            self._stored_more,
            self._hosts.drain,
            self._budget.count_verifying,
        )
        self._refused: set[str] = set()
        # Candidates whose host turned out not to be trusted.
        self._again: list[Assignment] = []

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
            self._end_well(verified_by=self._budget.until(VERIFY_SHARE), certified_by=self._budget.until(1.0))
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
            until = self._budget.now() + (1 - SEARCH_SHARE) * self._context.job.budget
            self._end_well(verified_by=until, certified_by=until)

    def _end_well(self, *, verified_by: float, certified_by: float) -> None:
        """Verify, certify, and measure a warm-up, each with a deadline (`time.monotonic`)."""
        self._budget.verifying_began()
        try:
            takes_s = warm_up_takes_s(self._study)
            # A warm-up may take up to half of the time that is left.
            kept_s = takes_s if takes_s <= (certified_by - self._budget.now()) / 2 else 0.0
            self._finals.verify(until=verified_by - kept_s)
            self._finals.certify(until=certified_by - kept_s)
            self._measure_warm_up(until=certified_by)
        finally:
            self._budget.verifying_ended()

    def _measure_warm_up(self, *, until: float) -> None:
        """Measure what a warm-up of the best config saves, if its first answer was slow."""
        context, study = self._context, self._study
        folder = context.out.model(self._model.name) / "warm-up"
        measure_warm_up(
            study,
            self._terms,
            self._launches.dispatcher,
            folder,
            lambda by: self._budget.limits(until=by),
            context.progress,
            until=until,
        )
        self._stored_more()

    def _stored_more(self) -> None:
        """Store the time spent, and write the result files, which include it."""
        self._budget.count_verifying()
        self._context.progress.results_changed(self._write())

    def _run_without(self, wanted: Assignment, load: Concurrency | None) -> None:
        """Run a trial for the explanation."""
        space = self._space(self._study.trials[0])
        assignment = space.normalize(wanted)
        candidate = space.candidate(assignment)
        if refusal := self._refusal(candidate, space):
            self._context.progress.note(f"skipped: {in_words(assignment, space.baseline)}: {refusal}")
            return
        # It is not cut short where others are better, since it is compared with the best.
        limits = self._budget.limits(
            until=self._budget.now() + self._stopping.budget_s, slow=space.launches_slowly(candidate.parameters)
        )
        self._recall_outputs()
        self._launches.launch(candidate, space, self._launches.dispatcher.free()[0], Sweep(also=load), limits)
        self._finish(self._launches.dispatcher.outcome(), space)

    def _search(self) -> str:
        """Measure the baseline and then candidates. Returns why the search ended."""
        space = self._space(self._study.trials[0]) if self._study.trials else self._measure_baseline()
        for name, reason in space.left_out.items():
            self._context.progress.note(f"{name} does not vary: {reason}")
        for note in space.notes:
            self._context.progress.note(note)
        warm_start = self._warm_start(space)
        proposals = Proposals(space, self._study, FirstThen(warm_start.first, self._sampler(space)))
        self._context.progress.phase_began("search")
        dispatcher = self._launches.dispatcher
        while True:
            ended = self._launch_more(proposals, space)
            if ended and not dispatcher.under_way:
                return ended
            if ended and self._launches.pending and self._context.job.verify:
                self._finals.speculate(until=self._budget.until(VERIFY_SHARE))
            if finished := dispatcher.wait():
                self._finish(finished, space)

    def _finish(self, finished: Finished, space: SearchSpace) -> None:
        """Store what has ended during the search."""
        key = finished.piece.key
        if isinstance(key, HostBaseline):
            self._hosts.ended(key, finished)
        elif not isinstance(key, TrialLaunch):
            self._finals.ended(finished)
        elif result := self._launches.result(key, finished.outcome):
            self._store(result, space)
            self._measure_again(self._hosts.drain())

    def _measure_again(self, numbers: Collection[int]) -> None:
        """Leave out trials of a host that is not to be trusted, and measure their candidates on other hosts first."""
        if not numbers:
            return
        again = [trial.parameters for trial in self._study.trials if trial.number in numbers]
        self._study.set_aside(numbers)
        self._launches.trials_set_aside()
        self._again += again
        which = ", ".join(map(str, sorted(numbers)))
        self._context.progress.note(f"trials {which} do not count; other hosts measure their candidates again")

    def _launch_more(self, proposals: Proposals, space: SearchSpace) -> str | None:
        """Launch a candidate on each free slot. Returns why there is none for a slot; None: all slots have work."""
        for slot in self._launches.dispatcher.free():
            if ended := self._end():
                return ended
            if self._hosts.is_due_on(slot):
                self._recall_outputs()
                self._hosts.launch(slot, self._budget.limits_of_search())
                continue
            candidate = self._proposed(proposals, space)
            if isinstance(candidate, NoMore):
                return candidate.reason
            self._recall_outputs()
            front = rivals(self._study.recommendation.front, self._terms.rules.percentile, self._terms.objective)
            terms = replace(self._terms, rules=replace(self._terms.rules, rivals=front))
            limits = self._budget.limits_of_search(slow=space.launches_slowly(candidate.parameters))
            self._launches.launch(candidate, space, slot, Sweep(), limits, terms=terms)
        return None

    def _recall_outputs(self) -> None:
        """Make sure that there are golden outputs to compare a candidate with."""
        if not self._outputs.recall():
            self._baseline.record_outputs_again()

    def _proposed(self, proposals: Proposals, space: SearchSpace) -> Candidate | NoMore:
        """The next candidate that is worth a launch."""
        while self._again:
            candidate = space.candidate(self._again.pop(0))
            if not self._refusal(candidate, space):
                return candidate
        while True:
            assignment = proposals.next(self._launches.pending)
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

    def _refusal(self, candidate: Candidate, space: SearchSpace) -> str | None:
        """Why to skip a candidate; None to launch it."""
        if (same := self._launches.same_as(candidate)) is not None:
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
            study.add(trial.model_copy(update={"number": self._launches.next_number()}), space)
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

    def _measure_baseline(self) -> SearchSpace:
        result = self._baseline.measure()
        space = self._space(result)
        self._store(result.model_copy(update={"parameters": space.baseline, "others": space.originals}), space)
        return space

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

    def _store(self, result: TrialResult, space: SearchSpace) -> None:
        self._study.add(result, space)
        self._context.progress.trial_ended(result, self._write())

    def _end(self) -> str | None:
        """Why the search ends now; None to go on."""
        launched = self._study.own_trials
        recent = list(zip(self._study.trials, self._study.hypervolumes, strict=True))[-launched:]
        return self._stopping.reason(
            launched=launched + len(self._launches.pending),
            spent_s=self._budget.spent_s,
            next_trial_s=(self._study.trials[0].launch_s or 0) + _FIRST_LEVELS_S,
            # Launches without a measurement are not counted as launches without a gain.
            hypervolumes=[volume for trial, volume in recent if trial.curve],
        )
