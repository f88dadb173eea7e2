"""The budget of one model, and the time limits of its launches."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from tuner.config.repository import ModelFolder
from tuner.core import deadlines
from tuner.measure.work import Limits
from tuner.options.tune_job import TuneJob
from tuner.study.study import Study

SEARCH_SHARE, VERIFY_SHARE = 0.7, 0.92
"""Shares of the budget at which the search ends and verification ends; the rest is for certifying."""
# The share of the budget that one launch which builds engines may take.
_BUILD_SHARE = 0.3
# The least deadline, in seconds.
_LEAST_S = 0.1


class Budget:
    """The time of one model. Time that earlier runs of its study spent counts, too.

    Args:
        job: The job, with the budget.
        model: The model.
        study: Its study.
        now: The clock, in seconds.

    Attributes:
        search_s: Seconds that the search may take, from the beginning.
    """

    def __init__(
        self, job: TuneJob, model: ModelFolder, study: Study, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._job, self._model, self._study, self.now = job, model, study, now
        self._began = now() - study.took_s
        self._counted: float | None = None
        self.search_s = (SEARCH_SHARE if job.verify else 1.0) * job.budget

    @property
    def spent_s(self) -> float:
        """Seconds that were spent."""
        return self.now() - self._began

    @property
    def left_s(self) -> float:
        """Seconds until the whole budget ends, including the finalists' part."""
        return self.until(1.0) - self.now()

    def until(self, share: float) -> float:
        """When a share of the budget is spent, by the clock."""
        return self._began + share * self._job.budget

    @property
    def uncounted_s(self) -> float:
        """Seconds that the study does not yet know of."""
        return max(0.0, self.spent_s - self._study.took_s)

    def verifying_began(self) -> None:
        """From now on, time is spent on verifying; see `count_verifying`."""
        self._counted = self.now()

    def count_verifying(self) -> None:
        """Store the time spent on verifying so far, so that it counts in a resumed run.

        Rounds of verification during the search take no time of their own.
        """
        if self._counted is not None:
            now = self.now()
            self._study.add_verifying_s(now - self._counted)
            self._counted = now

    def verifying_ended(self) -> None:
        """Store the time spent on verifying, which ends now."""
        self.count_verifying()
        self._counted = None

    def limits_of_search(self, *, slow: bool = False) -> Limits:
        """The limits of the next trial of the search, which end with the budget.

        Args:
            slow: See `limits`.
        """
        limits = self.limits(until=self._began + self.search_s, slow=slow)
        if not self._study.trials:
            return limits
        left_s = max(_LEAST_S, self.left_s)
        return replace(limits, launch_s=min(limits.launch_s, left_s), first_answer_s=min(limits.first_answer_s, left_s))

    def limits(self, *, until: float, slow: bool = False) -> Limits:
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
            build_s = min(deadlines.SLOW_LAUNCH_S, _BUILD_SHARE * self._job.budget)
            own, answer_s = max(own, build_s), max(answer_s, build_s)
        total_s = max(0.0, until - self.now())
        return Limits(launch_s=self._job.launch_timeout or own, first_answer_s=answer_s, total_s=total_s)

    def limits_of_finalists(self, until: float) -> Limits:
        """The limits of a launch of any finalist; `until`: see `limits`."""
        space = self._study.space
        slow = any(space.launches_slowly(trial.parameters) for trial in self._study.trials if trial.curve)
        return self.limits(until=until, slow=slow)
