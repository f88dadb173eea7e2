"""What an earlier run knows of a model: trials to take over, and candidates to launch first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tuner.config.config import ModelConfig
from tuner.core.errors import ConfigError
from tuner.measure.trial import TrialResult
from tuner.space.candidate import Assignment
from tuner.space.space import SearchSpace
from tuner.study.run_folder import RunFolder
from tuner.study.study import Identity, Study

# Of what was best elsewhere, so many candidates are worth a launch each before the sampler knows anything.
_FIRST = 3
# What must be the same for a number to be worth anything here; the config may differ, as each candidate's is compared.
_SAME = ("files", "requests", "server", "machine", "driver", "output_tolerance")


@dataclass(frozen=True)
class WarmStart:
    """What an earlier study of the same model tells.

    Attributes:
        trials: Measured under the same conditions, so that they count as if they were this run's.
        first: Candidates that were good, under other conditions, the best first.
        differs: The first of those conditions; empty when none does.
    """

    trials: tuple[TrialResult, ...] = ()
    first: tuple[Assignment, ...] = ()
    differs: str = ""

    @classmethod
    def of(cls, run_dir: Path, identity: Identity, space: SearchSpace) -> WarmStart:
        """Read what the run in a folder knows of the model of `identity`; nothing, when it did not tune that one.

        Raises:
            JobError: the folder holds no run, or one that another version stored.
        """
        run = RunFolder.existing(run_dir)
        if identity.model not in Study.models(run.database):
            return cls()
        study = Study.load(run.database, identity.model)
        if not study.trials:
            return cls()
        differs = next((name for name in _SAME if getattr(study.identity, name) != getattr(identity, name)), "")
        here = {trial.number: found for trial in study.trials if (found := _here(trial, study.space, space))}
        if differs:
            told = study.recommendation
            good = [told.best, *reversed(told.front)] if told.best else list(reversed(told.front))
            numbers = dict.fromkeys(each.trial.number for each in good)
            first = [here[number] for number in numbers if number in here and here[number] != space.baseline]
            return cls(first=tuple(first[:_FIRST]), differs=differs)
        taken = (
            trial.model_copy(update={"parameters": here[trial.number], "wall_s": 0.0, "imported": True})
            for trial in study.trials
            if trial.number in here and here[trial.number] != space.baseline
        )
        return cls(trials=tuple(taken))


def _here(trial: TrialResult, theirs: SearchSpace, ours: SearchSpace) -> Assignment | None:
    """The candidate that gives the same config as the trial's; None where this space has none."""
    wanted = {p.name: trial.parameters.get(p.name, p.base) for p in theirs.parameters}
    try:
        assignment = ours.settle({p.name: wanted.get(p.name, p.base) for p in ours.parameters})
        same = ours.candidate(assignment).config.proto == ModelConfig.parse(trial.config, "a trial's config").proto
    except (ConfigError, ValueError):
        return None
    return assignment if same else None
