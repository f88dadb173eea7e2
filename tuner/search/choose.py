"""The sampler of a name."""

from __future__ import annotations

from collections.abc import Callable

from tuner.job import SamplerName
from tuner.search.goal import Goal
from tuner.search.samplers import FirstThen, GpSampler, GridSampler, RandomSampler, Sampler, TpeSampler
from tuner.search.walk import first_candidates
from tuner.space.space import SearchSpace


def choose_sampler(
    name: SamplerName, space: SearchSpace, seed: int, goal: Goal, note: Callable[[str], None]
) -> Sampler:
    """Make a sampler.

    Args:
        name: Which.
        space: What may vary.
        seed: Of all chances.
        goal: What is searched for.
        note: Is told of what a user should know.

    Raises:
        JobError: what it needs is not installed.
    """
    if name == "tpe":
        return FirstThen(first_candidates(space), TpeSampler(space, seed))
    if name == "gp":
        return FirstThen(first_candidates(space), GpSampler(space, seed))
    if name == "random":
        return RandomSampler(space, seed)
    if name == "grid":
        return GridSampler(space)
    from tuner.search.twin_sampler import TwinSampler  # noqa: PLC0415 (its compiler takes a while, and others need it not)

    return TwinSampler(space, seed, goal, FirstThen(first_candidates(space), TpeSampler(space, seed)), note)
