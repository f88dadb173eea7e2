"""Makes the sampler that `--sampler` names."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from tuner.core.errors import JobError
from tuner.options.tune_job import SamplerName
from tuner.search.goal import Goal
from tuner.search.guide_candidates import first_candidates
from tuner.search.samplers import FirstThen, GpSampler, GridSampler, RandomSampler, Sampler, TpeSampler
from tuner.space.space import SearchSpace


def check_installed(name: SamplerName) -> None:
    """Check that the packages of a sampler are installed, before anything is launched.

    Raises:
        JobError: PyTorch is missing for the Gaussian process.
    """
    if name == "gp" and importlib.util.find_spec("torch") is None:
        raise JobError("--sampler gp: PyTorch is not installed: pip install 'tritontune[gp]'")


def choose_sampler(
    name: SamplerName, space: SearchSpace, seed: int, goal: Goal, note: Callable[[str], None]
) -> Sampler:
    """Make a sampler.

    Args:
        name: The name of the sampler.
        space: The search space.
        seed: The seed of all random choices.
        goal: The objective and its limits.
        note: Takes messages for the user.
    """
    if name == "tpe":
        return FirstThen(first_candidates(space), TpeSampler(space, seed))
    if name == "gp":
        return FirstThen(first_candidates(space), GpSampler(space, seed))
    if name == "random":
        return RandomSampler(space, seed)
    if name == "grid":
        return GridSampler(space)
    from tuner.search.twin_sampler import TwinSampler  # noqa: PLC0415 (importing its compiler takes a while)

    return TwinSampler(space, seed, goal, FirstThen(first_candidates(space), TpeSampler(space, seed)), note)
