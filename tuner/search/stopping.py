"""The stopping rule of a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BUDGET_SPENT = "the budget is spent"
"""The reason when a search ends by its budget."""


@dataclass(frozen=True)
class Stopping:
    """A search ends when the first of these is reached.

    Attributes:
        budget_s: Time for all trials together, in seconds.
        trials: Number of trials, including the baseline; None: unlimited.
        patience: Number of consecutive launches without a gain.
        worthwhile: The least growth of the hypervolume, as a share, that counts as a gain.
    """

    budget_s: float
    trials: int | None = None
    patience: int = 10
    worthwhile: float = 0.01

    def reason(
        self, *, launched: int, spent_s: float, next_trial_s: float, hypervolumes: Sequence[float]
    ) -> str | None:
        """Why to begin no further trial; None to go on.

        Args:
            launched: Number of trials of this run so far.
            spent_s: Time spent so far, in seconds.
            next_trial_s: The least time for a useful next trial, in seconds.
            hypervolumes: Hypervolume of the front after each trial so far, beginning with the baseline.
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
