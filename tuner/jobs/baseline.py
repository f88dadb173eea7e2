"""Measures the baseline, with which all candidates are compared."""

from __future__ import annotations

import shutil

from tuner.cluster.slots import Slot
from tuner.config.beside import copy_hint
from tuner.config.config import ModelConfig
from tuner.config.repository import ModelFolder
from tuner.core.errors import JobError, TuningError, shortened
from tuner.jobs.budget import Budget
from tuner.jobs.output_check import OutputCheck
from tuner.jobs.run_context import RunContext
from tuner.jobs.trial_launches import TrialLaunch, TrialLaunches
from tuner.measure.gpu_selection import requires_gpus
from tuner.measure.trial import TrialResult
from tuner.measure.work import FAILURE, Limits, LoadPlan, Loads, Sweep, TrialTerms, Work
from tuner.outputs.golden import GoldenOutputs
from tuner.space.candidate import Candidate, in_words
from tuner.space.originals import originals_of


class Baseline:
    """The baseline of one model.

    Args:
        context: The context of the run.
        model: The model.
        terms: The terms of all launches of the model.
        launches: Launches trials.
        budget: The budget of the model.
        outputs: Takes the golden outputs.
    """

    def __init__(  # noqa: PLR0917 (constructed at one place)
        self,
        context: RunContext,
        model: ModelFolder,
        terms: TrialTerms,
        launches: TrialLaunches,
        budget: Budget,
        outputs: OutputCheck,
    ) -> None:
        self._context, self._model, self._terms = context, model, terms
        self._launches, self._budget, self._outputs = launches, budget, outputs

    def measure(self) -> TrialResult:
        """Measure the baseline, and record its outputs.

        Raises:
            TuningError: it cannot be measured.
            JobError: what the job asks for cannot be measured for it.
        """
        self._context.progress.phase_began("baseline")
        result = self._run(self._launches.next_number())
        if result.curve and result.failure:
            result = self._again(result)
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
        return result

    def record_outputs_again(self) -> None:
        """Relaunch the baseline of a resumed run to record the golden outputs that were lost.

        Raises:
            TuningError: it no longer works.
        """
        folder = self._context.out.model(self._model.name) / "recorded"
        work = self._work(Loads(()), self._budget.limits(until=self._budget.until(1.0)))
        outcome = self._launches.dispatcher.carry_out("the baseline, to record its outputs", work, folder)
        if outcome.failure:
            reason = outcome.failure.message
            raise TuningError(f"model {self._model.name!r}: the baseline no longer works: {reason}")
        self._outputs.recorded(outcome.examined)

    @property
    def _own(self) -> Candidate:
        config = self._model.config or ModelConfig.parse("", f"{self._model.name}/config.pbtxt")
        return Candidate({}, config, originals_of(self._context.spec, self._model, self._context.job))

    def _work(self, plan: LoadPlan, limits: Limits) -> Work:
        return Work(self._terms, self._own.patch, plan, limits, self._outputs.of_baseline, is_baseline=True)

    def _run(self, number: int) -> TrialResult:
        trial, dispatcher = TrialLaunch(number, self._own, in_words({}, {})), self._launches.dispatcher
        self._launches.begin(trial, self._work(Sweep(), self._budget.limits_of_search()), self._slot)
        outcome = dispatcher.outcome().outcome
        if outcome is None:
            raise TuningError(f"model {self._model.name!r}: the hosts of the baseline were lost")
        if isinstance(outcome.examined, GoldenOutputs):
            self._outputs.recorded(outcome.examined)
        return self._launches.result_of(trial, outcome)

    @property
    def _slot(self) -> Slot:
        """A slot of the reference host, by whose machine the space is bounded."""
        reference = self._context.executor.hosts[0].name
        return min(self._launches.dispatcher.free(), key=lambda slot: slot.host != reference)

    def _again(self, failed: TrialResult) -> TrialResult:
        """Measure the baseline once more if it failed midway, since all candidates are compared with it."""
        why = f" ({failed.failure.cause.value}: {shortened(failed.failure.message)})" if failed.failure else ""
        self._context.progress.note(f"the baseline failed midway{why}; measuring it once more")
        # The next attempt uses the folder; the log of the failed one is kept beside it.
        folder = self._context.out.trial(self._model.name, failed.number)
        beside = folder.with_name(f"{folder.name}-failed")
        shutil.rmtree(beside, ignore_errors=True)  # left by a run that was killed during its second attempt
        folder.replace(beside)
        again = self._run(failed.number)
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
