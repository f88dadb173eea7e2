"""One assignment of the search parameters, and the config that it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tuner.config.completion import fingerprint
from tuner.config.config import ModelConfig
from tuner.config.patch import NO_CHANGES, Patch
from tuner.space.spec import OFF, ON, LadderValue

Assignment = Mapping[str, LadderValue]
"""Parameter values by name, without those that have no effect (a queue delay without dynamic batching)."""


@dataclass(frozen=True)
class Candidate:
    """One assignment of the search parameters.

    Attributes:
        parameters: The assignment, in the order of the space.
        config: The model's config with just these parameters' fields changed.
        others: The other files, arguments and variables, with just these parameters' values changed; its config is
            empty.
    """

    parameters: Assignment
    config: ModelConfig
    others: Patch = NO_CHANGES

    @property
    def patch(self) -> Patch:
        """Everything that the candidate sets."""
        return self.others.with_config(self.config.text)

    @property
    def fingerprint(self) -> str:
        """A hash that is equal for candidates that a server would serve alike; see `tuner.config.completion`."""
        return fingerprint(self.config) + self.others.beyond_config


def key_of(assignment: Assignment) -> tuple[tuple[str, LadderValue], ...]:
    """A hashable form of an assignment."""
    return tuple(sorted(assignment.items()))


def in_words(parameters: Assignment, baseline: Assignment) -> str:
    """An assignment as text: `dynamic_batching, max_batch_size 64, instance_group.count 2`.

    Args:
        parameters: The assignment.
        baseline: The baseline's assignment. A value `off` is omitted if the baseline has it, too.
    """
    words = [_words(name, value, baseline.get(name, OFF)) for name, value in parameters.items()]
    return ", ".join(word for word in words if word) or "the baseline"


def _words(name: str, value: LadderValue, was: LadderValue) -> str:
    short = name.removeprefix("dynamic_batching.")
    if value == ON:
        return short
    if value == OFF:
        return "" if was == OFF else f"no {short}"
    return f"{short} {shown(value)}"


def shown(value: LadderValue) -> str:
    """A value as a space file has it: `8`, `true`, `[2, 4]`."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(shown, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
