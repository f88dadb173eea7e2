"""One assignment of the search parameters, and the config that it gives."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from tuner.models.config import ModelConfig
from tuner.space.spec import OFF, ON, LadderValue

Assignment = Mapping[str, LadderValue]
"""Parameters that count, by name. One that does not (a queue delay without dynamic batching) is not in it."""


@dataclass(frozen=True)
class Candidate:
    """One assignment of the search parameters.

    Attributes:
        parameters: The assignment, in the order of the space.
        config: The model's config with just these parameters' fields changed.
    """

    parameters: Assignment
    config: ModelConfig

    @property
    def fingerprint(self) -> str:
        """Equal for candidates that would launch the same server."""
        return hashlib.sha256(self.config.text.encode()).hexdigest()

    def __str__(self) -> str:
        return in_words(self.parameters)


def key_of(assignment: Assignment) -> tuple[tuple[str, LadderValue], ...]:
    """An assignment, hashable; equal for equal ones."""
    return tuple(sorted(assignment.items()))


def in_words(parameters: Assignment) -> str:
    """An assignment for people to read: `dynamic_batching, max_batch_size 64, instance_group.count 2`."""
    words = [_words(name, value) for name, value in parameters.items()]
    return ", ".join(word for word in words if word) or "the config as it is"


def _words(name: str, value: LadderValue) -> str:
    if value == ON:
        return name
    if value == OFF:
        # A setting that is left out is worth no word; a whole block is.
        return "" if "." in name else f"no {name}"
    shown = f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else value
    return f"{name.removeprefix('dynamic_batching.')} {shown}"
