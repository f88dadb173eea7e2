"""Which configs the trials of a study served, so that none is measured twice under two names."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.config.completion import fingerprint, served_fingerprint
from tuner.config.config import ModelConfig
from tuner.core.errors import Cause
from tuner.measure.trial import TrialResult
from tuner.space.candidate import Candidate

# Trials that ended before their config was looked at say nothing of it.
_UNMEASURED = {Cause.CONFIG_DIFFERS, Cause.DUPLICATE}


class ServedConfigs:
    """The configs that were served, by fingerprint; each trial is read once."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._read = 0

    def read(self, trials: Sequence[TrialResult]) -> None:
        """Take in the trials of a study, of which some may be known already."""
        for trial in trials[self._read :]:
            if trial.effective_config and not (trial.failure and trial.failure.cause in _UNMEASURED):
                launched = ModelConfig.parse(trial.config, "a trial's config")
                effective = ModelConfig.parse(trial.effective_config, "the effective config")
                for each in (fingerprint(launched), served_fingerprint(effective, launched)):
                    self._numbers.setdefault(each, trial.number)
        self._read = len(trials)

    def same_as(self, candidate: Candidate, effective: ModelConfig | None = None) -> int | None:
        """The number of the trial that had the same config; None when none had.

        Args:
            candidate: What is to be launched, or was.
            effective: What the server made of it; None before the launch.
        """
        found = self._numbers.get(candidate.fingerprint)
        if found is None and effective is not None:
            found = self._numbers.get(served_fingerprint(effective, candidate.config))
        return found
