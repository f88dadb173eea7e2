"""One search parameter, bounded for a model and a machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from typing_extensions import TypeIs

from tuner.space.place import AS_IS, Place
from tuner.space.spec import OFF, LadderValue, Scalar


@dataclass(frozen=True)
class Parameter:
    """One search parameter.

    Attributes:
        name: Its name in the space file.
        place: Where it sets its value.
        ladder: Its possible values in order; samplers see their indices.
        base: The model's own value, which is in the ladder.
        when: Values that other parameters must have for this one to have an effect.
        arguments: Arguments of `tritonserver` that a value needs, by value as text.
        marked: Values that may change what the model answers.
        try_alone: Whether its values are launched alone first.
        slow_launch: Whether a launch with another value than the model's own may take minutes.
        does: What it does, in one line; may be empty.
    """

    name: str
    place: Place
    ladder: tuple[LadderValue, ...]
    base: LadderValue
    when: Mapping[str, tuple[Scalar, ...]]
    arguments: Mapping[str, Sequence[str]] = field(default_factory=dict)
    marked: tuple[LadderValue, ...] = ()
    try_alone: bool = False
    slow_launch: bool = False
    does: str = ""

    @property
    def field(self) -> str:
        """The path of the field in the tuned model's config.pbtxt that it sets; empty: it sets something else."""
        return self.place.own_field

    def index(self, value: LadderValue) -> int:
        """The index of a value in the ladder; `true` and `1` are different values.

        Raises:
            ValueError: the value is not in the ladder.
        """
        for index, rung in enumerate(self.ladder):
            if type(rung) is type(value) and rung == value:
                return index
        raise ValueError(f"{self.name}: {value!r} is not one of {', '.join(map(str, self.ladder))}")

    def has(self, value: LadderValue) -> bool:
        """Whether a value is in the ladder."""
        return any(type(rung) is type(value) and rung == value for rung in self.ladder)

    def is_base(self, value: LadderValue) -> bool:
        """Whether a value is the model's own."""
        return type(value) is type(self.base) and value == self.base

    def nearest(self, value: float) -> LadderValue | None:
        """The largest number of the ladder that is <= `value`, else the smallest one; None without numbers."""
        numbers = [v for v in self.ladder if is_number(v)]
        return max((v for v in numbers if v <= value), default=min(numbers, default=None))


def is_number(value: LadderValue) -> TypeIs[int | float]:
    """Whether a ladder value is a number; `true` is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def ladder_with(ladder: tuple[LadderValue, ...], base: LadderValue) -> tuple[LadderValue, ...]:
    """The ladder with the model's own value inserted: numbers in order, `off` first, others last."""
    if any(type(base) is type(value) and base == value for value in ladder):
        return ladder
    if base in {OFF, AS_IS}:
        return (base, *ladder)
    if is_number(base):
        position = next((i for i, v in enumerate(ladder) if is_number(v) and v > base), len(ladder))
        return (*ladder[:position], base, *ladder[position:])
    return (*ladder, base)
