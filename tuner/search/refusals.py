"""Skips candidates that Triton would refuse, according to refused trials.

When Triton refuses to load a config, its message does not name the parameter at fault. The suspects are the parameters
in which the candidate differs from the baseline. A parameter is no suspect if a trial loaded with a value that differs
at least as much. Refusals with the same kind of message share their cause, which is among their common suspects. A
candidate is skipped if it differs at least as much in all remaining suspects.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import shorten

from tuner.config.config import ModelConfig
from tuner.core.errors import Cause
from tuner.measure.trial import TrialResult
from tuner.space.candidate import Assignment, Candidate, shown
from tuner.space.observed import served_otherwise
from tuner.space.parameter import is_number
from tuner.space.space import SearchSpace
from tuner.space.spec import LadderValue

# The most characters of Triton's message in the reason.
_WIDTH = 200
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class _Bound:
    """A value of a parameter, and all values above it (side 1) or below it (side -1); side 0: only the value."""

    name: str
    value: LadderValue
    side: int

    def holds(self, assignment: Assignment) -> bool:
        """Whether an assignment is within this bound."""
        value = assignment.get(self.name)
        if value is None:
            return False
        if is_number(value) and is_number(self.value) and self.side:
            return self.side * value >= self.side * self.value
        return type(value) is type(self.value) and value == self.value

    def __str__(self) -> str:
        beyond = {1: " or more", 0: "", -1: " or less"}[self.side]
        return f"{self.name} {shown(self.value)}{beyond}"


@dataclass(frozen=True)
class _Rule:
    """Candidates within all of `bounds` are skipped."""

    bounds: tuple[_Bound, ...]
    reason: str


class Refusals:
    """Rules from the trials so far about candidates that Triton would refuse.

    Args:
        space: The search space.
        trials: Finished trials, the baseline first.
    """

    def __init__(self, space: SearchSpace, trials: Sequence[TrialResult]) -> None:
        self._space = space
        self._rules = [*self._of_loads(trials), *self._of_configs(trials), *self._of_values_alone(trials)]

    def refusal(self, assignment: Assignment) -> str | None:
        """Why a candidate would be refused; None when no rule applies."""
        # The latest rule first, since it has the tightest bound of a parameter.
        for rule in reversed(self._rules):
            if all(bound.holds(assignment) for bound in rule.bounds):
                return rule.reason
        return None

    def _of_loads(self, trials: Sequence[TrialResult]) -> list[_Rule]:
        """Rules from configs that did not load."""
        loaded = [self._space.recall(trial.parameters) for trial in trials if trial.launch_s is not None]
        kinds: defaultdict[str, list[tuple[TrialResult, tuple[_Bound, ...]]]] = defaultdict(list)
        for trial in trials:
            if (
                trial.number
                and trial.launch_s is None
                and trial.failure
                and trial.failure.cause is Cause.INVALID_CONFIG
            ):
                bounds = self._deviations(self._space.recall(trial.parameters))
                suspects = tuple(b for b in bounds if not any(b.holds(assignment) for assignment in loaded))
                kinds[_NUMBER.sub("#", trial.failure.message)].append((trial, suspects or bounds))
        rules = []
        for refused in kinds.values():
            common = set.intersection(*({bound.name for bound in bounds} for _, bounds in refused))
            for trial, bounds in refused:
                blamed = tuple(bound for bound in bounds if bound.name in common) or bounds
                if blamed:
                    message = trial.failure.message if trial.failure else ""
                    words = f"trial {trial.number} did not load with {_and(blamed)}: {shorten(message, _WIDTH)}"
                    rules.append(_Rule(blamed, words))
        return rules

    def _of_values_alone(self, trials: Sequence[TrialResult]) -> list[_Rule]:
        """Rules from values that were launched alone and did not load, such as an accelerator that the image lacks."""
        rules = []
        for trial in trials:
            if trial.number == 0 or trial.launch_s is not None or trial.failure is None:
                continue
            assignment = self._space.recall(trial.parameters)
            for name, alone in self._space.alone(assignment):
                if alone == assignment:
                    bound = _Bound(name, assignment[name], 0)
                    words = shorten(trial.failure.message, _WIDTH)
                    rules.append(_Rule((bound,), f"trial {trial.number} did not load with {bound} alone: {words}"))
        return rules

    def _of_configs(self, trials: Sequence[TrialResult]) -> list[_Rule]:
        """Rules from configs that Triton served with other values."""
        rules = []
        for trial in trials:
            if not (trial.failure and trial.failure.cause is Cause.CONFIG_DIFFERS and trial.effective_config):
                continue
            launched = ModelConfig.parse(trial.config, "a trial's config")
            effective = ModelConfig.parse(trial.effective_config, "the effective config")
            candidate = Candidate(self._space.recall(trial.parameters), launched)
            for difference in served_otherwise(self._space, candidate, effective):
                side = _side(difference.asked, difference.served) if is_number(difference.served) else 0
                bound = _Bound(difference.name, difference.asked, side)
                rules.append(
                    _Rule((bound,), f"trial {trial.number}, with {bound}, was not served as configured: {difference}")
                )
        return rules

    def _deviations(self, assignment: Assignment) -> tuple[_Bound, ...]:
        """Bounds for each parameter in which a candidate differs from the baseline."""
        return tuple(
            _Bound(p.name, assignment[p.name], _side(assignment[p.name], p.base))
            for p in self._space.parameters
            if p.name in assignment and (type(assignment[p.name]), assignment[p.name]) != (type(p.base), p.base)
        )


def _side(value: LadderValue, other: LadderValue) -> int:
    """-1 if a value is below another, 1 if it is above or the other is no number; 0 if the value is no number."""
    if not is_number(value):
        return 0
    return -1 if is_number(other) and value < other else 1


def _and(bounds: Sequence[_Bound]) -> str:
    return " and ".join(map(str, bounds))
