"""Launches the trials of one model on free slots, and makes results of the outcomes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from itertools import count

from tuner.cluster.dispatcher import Dispatcher, Piece
from tuner.cluster.slots import Slot
from tuner.config.config import ModelConfig
from tuner.core.errors import Cause
from tuner.jobs.budget import Budget
from tuner.jobs.output_check import Examined, OutputCheck
from tuner.jobs.progress import ProgressOfTrial
from tuner.jobs.run_context import RunContext
from tuner.jobs.watches import LaunchWatch
from tuner.measure.trial import TrialResult
from tuner.measure.work import Failure, Limits, LoadPlan, Outcome, TrialProgress, TrialTerms, Work
from tuner.search.proposals import ServedConfigs
from tuner.search.samplers import Pending
from tuner.space.candidate import Candidate, in_words
from tuner.space.space import SearchSpace
from tuner.study.study import Study

OUT_OF_TIME = frozenset({Cause.TIMED_OUT, Cause.HUNG})


@dataclass(frozen=True)
class TrialLaunch:
    """A trial under way.

    Attributes:
        number: Its number.
        candidate: Its candidate.
        words: Its candidate in words.
        after: See `TrialResult`.
        beside: See `TrialResult`.
    """

    number: int
    candidate: Candidate
    words: str
    after: tuple[int, ...] = ()
    beside: tuple[int, ...] = ()


class _Watch(LaunchWatch):
    """Tells of the trials of a run, and of its other launches.

    Args:
        context: The context of the run.
    """

    def __init__(self, context: RunContext) -> None:
        super().__init__(context.progress)
        self._context = context

    def began(self, piece: Piece) -> None:
        """See `Watch`."""
        several = self._context.has_several_slots
        if isinstance(piece.key, TrialLaunch):
            slot = piece.slot.name if several else ""
            self._context.progress.trial_began(piece.key.number, piece.key.words, slot)
        elif several:
            super().began(piece)

    def requeued(self, piece: Piece, reason: str) -> None:
        """See `Watch`."""
        if isinstance(piece.key, TrialLaunch):
            number = piece.key.number
            self._context.progress.requeued(f"trial {number}", piece.slot.name, reason, trial=number)
        else:
            super().requeued(piece, reason)

    def ended(self, piece: Piece) -> None:
        """See `Watch`."""
        if not isinstance(piece.key, TrialLaunch) and self._context.has_several_slots:
            super().ended(piece)


class TrialLaunches:
    """Launches trials on free slots.

    Args:
        context: The context of the run.
        terms: The terms of all launches of the model.
        study: The study of the model.
        budget: Its budget.
        outputs: Compares outputs.
    """

    def __init__(
        self, context: RunContext, terms: TrialTerms, study: Study, budget: Budget, outputs: OutputCheck
    ) -> None:
        self._context, self._terms, self._study, self._budget, self._outputs = context, terms, study, budget, outputs
        self._served = ServedConfigs()
        self._numbers = count(study.next_number)
        self.dispatcher = Dispatcher(context.executor, _Watch(context), now=budget.now)

    @property
    def pending(self) -> tuple[Pending, ...]:
        """The trials under way."""
        return tuple(Pending(each.number, each.candidate.parameters) for each in self._under_way)

    @property
    def _under_way(self) -> list[TrialLaunch]:
        return [key for key in self.dispatcher.under_way if isinstance(key, TrialLaunch)]

    def next_number(self) -> int:
        """The number of the next trial. Numbers are given when a trial begins, so some may be missing in the end."""
        return next(self._numbers)

    def launch(
        self,
        candidate: Candidate,
        space: SearchSpace,
        slot: Slot,
        plan: LoadPlan,
        limits: Limits,
        *,
        terms: TrialTerms | None = None,
    ) -> None:
        """Launch a candidate on a free slot.

        Args:
            candidate: The candidate.
            space: The search space.
            slot: The slot.
            plan: The loads.
            limits: Time limits.
            terms: The terms of this launch, if they differ.
        """
        finished = tuple(trial.number for trial in self._study.trials)
        beside = tuple(each.number for each in self._under_way)
        words = in_words(candidate.parameters, space.baseline)
        trial = TrialLaunch(self.next_number(), candidate, words, finished, beside)
        self._served.read(self._study.trials)
        examine = self._outputs.of_candidate(space, candidate, self._served.frozen())
        work = Work(terms or self._terms, candidate.patch, plan, limits, examine)
        self.begin(trial, work, slot)

    def begin(self, trial: TrialLaunch, work: Work, slot: Slot) -> None:
        """Begin a trial with its work."""
        folder = self._context.out.trial(self._terms.model, trial.number)
        self.dispatcher.start(trial, work, slot, folder, self._progress(trial.number))

    def result(self, trial: TrialLaunch, outcome: Outcome | None) -> TrialResult | None:
        """The result of a trial that has ended; None if it does not count.

        Args:
            trial: The trial.
            outcome: Its outcome; None: its hosts were lost.
        """
        dropped = "its hosts were lost" if outcome is None else ""
        if outcome is not None:
            result = self.result_of(trial, outcome)
            if not self._is_cut_off(result):
                return self._examined(result, outcome, trial.candidate)
            dropped = "the budget ended before its first answer"
        self._context.progress.trial_dropped(trial.number, dropped)
        shutil.rmtree(self._context.out.trial(self._terms.model, trial.number), ignore_errors=True)
        return None

    def result_of(self, trial: TrialLaunch, outcome: Outcome) -> TrialResult:
        """The result of a trial by its outcome."""
        return TrialResult.of(trial.candidate, trial.number, outcome).model_copy(
            update={
                "after": trial.after,
                "beside": trial.beside,
                "elapsed_s": self._budget.uncounted_s if self._several else None,
                "host": outcome.host if self._several else "",
            }
        )

    def trials_set_aside(self) -> None:
        """Take note that the study has left out trials: their candidates may be launched again."""
        self._served = ServedConfigs()

    def same_as(self, candidate: Candidate) -> int | None:
        """The number of the trial with the same effective config, as far as it is known before a launch."""
        self._served.read(self._study.trials)
        return self._served.same_as(candidate)

    @property
    def _several(self) -> bool:
        """Whether several trials may be under way."""
        return self._context.has_several_slots

    def _progress(self, number: int) -> TrialProgress:
        progress = self._context.progress
        return ProgressOfTrial(progress, number) if self._several else progress

    def _is_cut_off(self, result: TrialResult) -> bool:
        """Whether the end of the budget cut a trial off."""
        failure = result.failure
        return not result.curve and failure is not None and failure.cause in OUT_OF_TIME and self._budget.left_s <= 0

    def _examined(self, result: TrialResult, outcome: Outcome, candidate: Candidate) -> TrialResult:
        """The result with what was found of its outputs."""
        if isinstance(outcome.examined, Examined):
            self._outputs.checked(outcome.examined)
            result = result.model_copy(update={"output_difference": outcome.examined.difference})
        return self._unless_duplicate(result, candidate) if result.beside else result

    def _unless_duplicate(self, result: TrialResult, candidate: Candidate) -> TrialResult:
        """The result, as a failure if a trial that was under way beside it has the same effective config."""
        if result.failure is not None or result.effective_config is None:
            return result
        self._served.read(self._study.trials)
        effective = ModelConfig.parse(result.effective_config, "the effective config")
        if (same := self._served.same_as(candidate, effective)) is None:
            return result
        failure = Failure(cause=Cause.DUPLICATE, message=f"same effective config as trial {same}")
        return result.model_copy(update={"failure": failure, "curve": ()})
