"""The sampler of a name."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from tuner.core.errors import JobError
from tuner.options.tune_job import SamplerName
from tuner.search.goal import Goal
from tuner.search.samplers import FirstThen, GpSampler, GridSampler, RandomSampler, Sampler, TpeSampler
from tuner.search.walk import first_candidates
from tuner.space.space import SearchSpace


def check_installed(name: SamplerName) -> None:
    """See that what a sampler needs is there, before anything is launched for it.

    Raises:
        JobError: it is not.
    """
    if name == "gp" and importlib.util.find_spec("torch") is None:
        raise JobError("--sampler gp: it wants PyTorch, which is not installed; pip install 'tritontune[gp]'")


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
