"""Warm starts: trials of an earlier run to take over, or candidates of it to launch first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tuner.config.config import ModelConfig
from tuner.config.patch import Patch
from tuner.core.errors import ConfigError
from tuner.measure.trial import TrialResult
from tuner.space.candidate import Assignment
from tuner.space.space import SearchSpace
from tuner.study.run_folder import RunFolder
from tuner.study.study import Identity, Study

# The most candidates of an earlier run under other conditions to launch first.
_MOST_FIRST = 3
# Fields that must be equal to take over trials. The config may differ, since each candidate's config is compared.
_SAME = ("files", "requests", "rate", "server", "machine", "driver", "output_tolerance")


@dataclass(frozen=True)
class WarmStart:
    """Trials and candidates from an earlier study of the same model.

    Attributes:
        trials: Trials measured under the same conditions, which count as trials of this run.
        first: The best candidates under other conditions, in descending order, to launch first.
        differs: The first condition that differs; empty: none.
    """

    trials: tuple[TrialResult, ...] = ()
    first: tuple[Assignment, ...] = ()
    differs: str = ""

    @classmethod
    def of(cls, run_dir: Path, identity: Identity, space: SearchSpace) -> WarmStart:
        """Read the warm start of the model of `identity` from a run folder; empty if that run did not tune the model.

        Raises:
            JobError: the path is not a run folder, or its study is from an incompatible version.
        """
        run = RunFolder.existing(run_dir)
        if identity.model not in Study.models(run.database):
            return cls()
        study = Study.load(run.database, identity.model)
        if not study.trials:
            return cls()
        differs = next((name for name in _SAME if getattr(study.identity, name) != getattr(identity, name)), "")
        here = {trial.number: own for trial in study.trials if (own := _own_assignment(trial, study.space, space))}
        if differs:
            recommended = study.recommendation
            points = ([recommended.best] if recommended.best else []) + list(reversed(recommended.front))
            numbers = dict.fromkeys(point.trial.number for point in points)
            first = [here[number] for number in numbers if number in here and here[number] != space.baseline]
            return cls(first=tuple(first[:_MOST_FIRST]), differs=differs)
        taken = (
            trial.model_copy(update={"parameters": here[trial.number], "wall_s": 0.0, "imported": True})
            for trial in study.trials
            if trial.number in here and here[trial.number] != space.baseline
        )
        return cls(trials=tuple(taken))


def _own_assignment(trial: TrialResult, theirs: SearchSpace, ours: SearchSpace) -> Assignment | None:
    """The assignment in our space that gives the trial's config; None: there is none."""
    wanted = {p.name: trial.parameters.get(p.name, p.base) for p in theirs.parameters}
    try:
        assignment = ours.normalize({p.name: wanted.get(p.name, p.base) for p in ours.parameters})
        candidate = ours.candidate(assignment)
        same = candidate.config.proto == ModelConfig.parse(trial.config, "a trial's config").proto
        same = same and _same_changes(trial.others, theirs.originals, candidate.others, ours.originals)
    except (ConfigError, ValueError):
        return None
    return assignment if same else None


def _same_changes(theirs: Patch, their_own: Patch, ours: Patch, our_own: Patch) -> bool:
    """Whether two patches change the same, each from the user's own values, outside the config."""
    changes = [patch.changed_from(own) for patch, own in ((theirs, their_own), (ours, our_own))]
    return changes[0].with_config("") == changes[1].with_config("")
