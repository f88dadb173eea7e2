"""What a server serves of what a candidate asks for: labels are intentions, an effective config is an observation."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.config.completion import stated
from tuner.config.config import ModelConfig
from tuner.core.errors import ConfigError
from tuner.space.bounds import value_at
from tuner.space.candidate import Candidate
from tuner.space.parameter import AS_IS
from tuner.space.space import SearchSpace
from tuner.space.spec import OFF, ON, LadderValue


@dataclass(frozen=True)
class Otherwise:
    """A parameter that the server has another value of than a candidate asks for.

    Attributes:
        name: Of the parameter.
        asked: By the candidate.
        served: By the server.
    """

    name: str
    asked: LadderValue
    served: LadderValue

    def __str__(self) -> str:
        return f"{self.name} is {self.served}, but {self.asked} was requested"


def served_otherwise(space: SearchSpace, candidate: Candidate, effective: ModelConfig) -> tuple[Otherwise, ...]:
    """The parameters of a candidate of which its server, by its effective config, has another value.

    A field that is left out (`off`) has whatever value Triton gives it; a message that is left out must not be there.
    """
    told = stated(effective, candidate.config)
    found = []
    for parameter in space.parameters:
        asked = candidate.parameters.get(parameter.name, AS_IS)
        is_message = ON in parameter.ladder
        if asked == AS_IS or (asked == OFF and not is_message):
            continue
        try:
            served = value_at(parameter.field, told, may_be_on=is_message)
        except ConfigError:  # a newer Triton's field, which the schema here does not show
            continue
        if _plain(asked) != _plain(served):
            found.append(Otherwise(parameter.name, asked, served))
    return tuple(found)


def _plain(value: LadderValue) -> tuple[type, LadderValue]:
    """A value, such that equal ones are equal: a list of one is that one, and a default is what is not there."""
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    return (str, OFF) if value in {0, "", ()} else (type(value), value)
