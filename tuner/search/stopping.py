"""When a search has seen enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BUDGET_SPENT = "the budget is spent"
"""Why a search ends that had no time for more."""


@dataclass(frozen=True)
class Stopping:
    """The ends of a search, whichever comes first.

    Attributes:
        budget_s: Seconds that all trials together may take.
        trials: Launches, the baseline included; None: any number.
        patience: Launches in a row that may gain nothing.
        worthwhile: The least growth of the hypervolume, as a share, that counts as a gain.
    """

    budget_s: float
    trials: int | None = None
    patience: int = 10
    worthwhile: float = 0.01

    def reason(
        self, *, launched: int, spent_s: float, next_trial_s: float, hypervolumes: Sequence[float]
    ) -> str | None:
        """Why to begin no further trial, in words; None to go on.

        Args:
            launched: Trials of this run so far.
            spent_s: Seconds spent so far.
            next_trial_s: Seconds that the next trial needs at the least to tell anything.
            hypervolumes: Of the front after each trial so far, the baseline's first.
        """
        if self.trials is not None and launched >= self.trials:
            return f"all {self.trials} trials are done" if self.trials > 1 else "the one trial is done"
        if spent_s + next_trial_s > self.budget_s:
            return BUDGET_SPENT
        if self._idle(hypervolumes[-launched:]):
            return f"the last {self.patience} launches gained less than {self.worthwhile:.0%}"
        return None

    def _idle(self, hypervolumes: Sequence[float]) -> bool:
        if len(hypervolumes) <= self.patience:
            return False
        return hypervolumes[-1] <= hypervolumes[-1 - self.patience] * (1 + self.worthwhile)
