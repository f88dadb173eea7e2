"""Which configs the trials of a study served, so that none is measured twice under two names."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.config.completion import fingerprint, served_fingerprint
from tuner.config.config import ModelConfig
from tuner.core.errors import Cause
from tuner.measure.trial import TrialResult
from tuner.space.candidate import Candidate

# Failures after which a trial does not count as a measurement of its config.
_UNMEASURED = {Cause.CONFIG_DIFFERS, Cause.DUPLICATE}


class ServedConfigs:
    """The configs that were served, by fingerprint."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._read = 0

    def read(self, trials: Sequence[TrialResult]) -> None:
        """Add the trials of a study; those that were added before are skipped."""
        for trial in trials[self._read :]:
            if trial.effective_config and not (trial.failure and trial.failure.cause in _UNMEASURED):
                launched = ModelConfig.parse(trial.config, "a trial's config")
                effective = ModelConfig.parse(trial.effective_config, "the effective config")
                for key in (fingerprint(launched), served_fingerprint(effective, launched)):
                    self._numbers.setdefault(key, trial.number)
        self._read = len(trials)

    def same_as(self, candidate: Candidate, effective: ModelConfig | None = None) -> int | None:
        """The number of the trial with the same effective config; None when there is none.

        Args:
            candidate: The candidate.
            effective: Its effective config; None before the launch.
        """
        number = self._numbers.get(candidate.fingerprint)
        if number is None and effective is not None:
            number = self._numbers.get(served_fingerprint(effective, candidate.config))
        return number
