"""The candidates among which the next launch is chosen: all of a small space; of a large one those worth a look."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

from tuner.space.candidate import Assignment, key_of
from tuner.space.parameter import Parameter
from tuner.space.space import SearchSpace

# The most index combinations of a space that is listed as a whole.
_LISTED = 1_000
# Draws for each choice: changes of two or three parameters of a good candidate, and any candidates.
_STEPS, _ANYWHERE = 150, 250
MOST_CHANGES = 3
"""The most unknown parameters of a launched candidate that change at once."""


class CandidatePool:
    """The candidates of one space.

    Args:
        space: The search space.
        seed: The seed of the draws.
        unknown: The parameters whose effects are unknown. Random candidates change at most `MOST_CHANGES` of them, as a
            launch with many changes tells little.
    """

    def __init__(self, space: SearchSpace, seed: int, unknown: Sequence[Parameter]) -> None:
        self._space, self._seed = space, seed
        self._unknown = {parameter.name for parameter in unknown}

    def around(self, good: Sequence[Assignment], number: int) -> list[Assignment]:
        """All candidates of a small space. Of a large one, changes of good candidates, and random ones.

        Args:
            good: Good candidates, the best first.
            number: The number of the choice; equal numbers give equal draws.
        """
        if self._all is not None:
            return list(self._all)
        draw = random.Random(f"{self._seed} {number}")  # noqa: S311 (no secret)
        near = (other for each in good for other in self.neighbours(each))
        return distinct([*good, *near, *self._steps(good, draw), *self._anywhere(good, draw)])

    def neighbours(self, assignment: Assignment) -> Iterator[Assignment]:
        """The candidates that differ in one parameter."""
        indices = self._space.indices(assignment)
        for parameter in self._space.parameters:
            for index in range(len(parameter.ladder)):
                if index != indices[parameter.name]:
                    yield self._space.assignment({**indices, parameter.name: index})

    @property
    def is_whole(self) -> bool:
        """Whether the pool has every candidate of the space."""
        return self._all is not None

    @cached_property
    def _all(self) -> tuple[Assignment, ...] | None:
        return tuple(self._space.assignments()) if self._space.size() <= _LISTED else None

    def _steps(self, good: Sequence[Assignment], draw: random.Random) -> Iterator[Assignment]:
        parameters = self._space.parameters
        for _ in range(_STEPS if good else 0):
            # The better, the more draws.
            indices = self._space.indices(good[min(draw.randrange(len(good)), draw.randrange(len(good)))])
            for parameter in draw.sample(parameters, min(len(parameters), draw.choice((2, 2, 3)))):
                indices[parameter.name] = draw.randrange(len(parameter.ladder))
            yield self._space.assignment(indices)

    def _anywhere(self, good: Sequence[Assignment], draw: random.Random) -> Iterator[Assignment]:
        """Any values of the known parameters, and some changes of the unknown ones."""
        for _ in range(_ANYWHERE):
            indices = self._space.indices(draw.choice(good))
            unknown = [p for p in self._space.parameters if p.name in self._unknown]
            for parameter in self._space.parameters:
                if parameter.name not in self._unknown:
                    indices[parameter.name] = draw.randrange(len(parameter.ladder))
            for parameter in draw.sample(unknown, min(len(unknown), draw.randint(0, MOST_CHANGES))):
                indices[parameter.name] = draw.randrange(len(parameter.ladder))
            yield self._space.assignment(indices)


def distinct(assignments: Iterable[Assignment]) -> list[Assignment]:
    """Without repetitions, in order."""
    return list({key_of(assignment): assignment for assignment in assignments}.values())
