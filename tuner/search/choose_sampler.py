"""Makes the sampler that `--sampler` names."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator

from tuner.core.errors import JobError
from tuner.options.tune_job import SamplerName
from tuner.search.goal import Goal
from tuner.search.samplers import FirstThen, GpSampler, GridSampler, RandomSampler, Sampler, TpeSampler
from tuner.space.bounds import DYNAMIC_BATCHING, INSTANCE_COUNT, MAX_BATCH_SIZE
from tuner.space.candidate import Assignment
from tuner.space.parameter import is_number
from tuner.space.space import SearchSpace
from tuner.space.spec import LadderValue

# Objectives that follow from the throughput and latency that the simulator predicts.
_SIMULATED = {"throughput", "throughput_per_gpu", "latency"}


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
    if name == "gp":
        return FirstThen(first_candidates(space), GpSampler(space, seed))
    if name == "random":
        return RandomSampler(space, seed)
    if name == "grid":
        return GridSampler(space)
    tpe = FirstThen(first_candidates(space), TpeSampler(space, seed))
    if name == "tpe":
        return tpe
    if goal.objective.metric not in _SIMULATED:
        note(f"the simulator does not predict {goal.objective.words}; using the tpe sampler")
        return tpe
    from tuner.search.twin_sampler import TwinSampler  # noqa: PLC0415 (importing its compiler takes a while)

    return TwinSampler(space, seed, goal, tpe, note)


def first_candidates(space: SearchSpace) -> Iterator[Assignment]:
    """The steps of Triton's optimization guide: dynamic batching, twice the instances, both, and larger batches.

    Source: the "Optimization" chapter of the Triton user guide.
    """
    batching = space.switched_on(DYNAMIC_BATCHING)
    instances = _doubled(space, INSTANCE_COUNT)
    batches = _doubled(space, MAX_BATCH_SIZE)
    for values in (batching, instances, {**batching, **instances}, {**batching, **instances, **batches}):
        assignment = space.normalize(values)
        if assignment != space.baseline:
            yield assignment


def _doubled(space: SearchSpace, field: str) -> dict[str, LadderValue]:
    """The parameter of a field at the ladder value nearest to twice the baseline's."""
    return {
        p.name: value
        for p in space.parameters
        if p.field == field and is_number(p.base) and (value := p.nearest(p.base * 2)) is not None
    }
