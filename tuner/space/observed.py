"""Compares a candidate's parameters with the effective config of its server."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.config.completion import stated
from tuner.config.config import ModelConfig
from tuner.core.errors import ConfigError
from tuner.space.candidate import Candidate, shown
from tuner.space.place import AS_IS, value_at
from tuner.space.space import SearchSpace
from tuner.space.spec import OFF, ON, LadderValue


@dataclass(frozen=True)
class Otherwise:
    """A parameter whose value on the server differs from the candidate's.

    Attributes:
        name: The name of the parameter.
        asked: The candidate's value.
        served: The server's value.
    """

    name: str
    asked: LadderValue
    served: LadderValue

    def __str__(self) -> str:
        return f"{self.name} is {shown(self.served)}, but {shown(self.asked)} was requested"


def served_otherwise(space: SearchSpace, candidate: Candidate, effective: ModelConfig) -> tuple[Otherwise, ...]:
    """The parameters of a candidate that have another value in the effective config.

    Only fields of the tuned model's config are compared. A field that is `off` may have any value that Triton sets. A
    message that is `off` must be absent.
    """
    config = stated(effective, candidate.config)
    mismatches = []
    for parameter in space.parameters:
        if not parameter.field:
            continue
        asked = candidate.parameters.get(parameter.name, AS_IS)
        is_message = ON in parameter.ladder
        if asked == AS_IS or (asked == OFF and not is_message):
            continue
        try:
            served = value_at(parameter.field, config, may_be_on=is_message, has_numbers=parameter.place.has_numbers)
        except ConfigError:  # a field of a newer Triton, unknown to our schema
            continue
        if _plain(asked) != _plain(served):
            mismatches.append(Otherwise(parameter.name, asked, served))
    return tuple(mismatches)


def _plain(value: LadderValue) -> tuple[type, LadderValue]:
    """A value in comparable form: a list of one element becomes that element, and a default becomes `off`."""
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    return (str, OFF) if value in {0, "", ()} else (type(value), value)
