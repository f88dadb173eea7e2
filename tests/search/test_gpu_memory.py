from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Sequence

import pytest
from support.builders import MLP, point, space, trial
from support.nvml import GIB

from tuner.core.errors import Cause
from tuner.measure.gpu_view import GpuMemory
from tuner.measure.trial import TrialResult
from tuner.search.gpu_memory import MemoryEstimate, MemoryFactors, memory_factors
from tuner.space.space import SearchSpace

SPACE = space(
    """
schema: 1
parameters:
  dynamic_batching: {ladder: [off, on]}
  max_batch_size: {ladder: [1, 4, 8, 16, 32, 64, 128, 256]}
  dynamic_batching.max_queue_delay_microseconds: {ladder: [off, 500]}
  instance_group.count: {field: 'instance_group[*].count', ladder: [1, 2, 3, 4, 8, 16]}
  threads: {field: 'parameters["threads"].string_value', ladder: [off, "2", "4"]}
"""
)

Law = Callable[[int, int], float]


def honest(instances: int, batch: int) -> float:
    """A server of 0.5 GiB, and instances with 0.5 GiB of weights and 20 MiB an item."""
    return 0.5 * GIB + instances * (0.5 * GIB + batch * 20 * 2**20)


def measured(
    pairs: Sequence[tuple[int, int]],
    law: Law = honest,
    *,
    noise: float = 0.0,
    seed: int = 0,
    of: SearchSpace = SPACE,
    **more: object,
) -> list[TrialResult]:
    """A trial for each number of instances and batch size."""
    chance = random.Random(seed)  # noqa: S311 (no secret)
    return [
        trial(
            number,
            point(),
            parameters=of.normalize({"dynamic_batching": "on", "instance_group.count": i, "max_batch_size": b, **more}),  # type: ignore[dict-item]
        ).model_copy(
            update={
                "gpu_memory": GpuMemory(
                    gpu="GPU 0", peak_bytes=round(law(i, b) * (1 + chance.gauss(0, noise))), capacity_bytes=80 * GIB
                )
            }
        )
        for number, (i, b) in enumerate(pairs)
    ]


WALK = [(1, 1), (1, 32), (2, 1), (2, 32), (2, 64), (1, 8)]


def wanted(instances: int, batch: int, **more: object) -> dict[str, object]:
    return dict(
        SPACE.normalize({"dynamic_batching": "on", "instance_group.count": instances, "max_batch_size": batch, **more})  # type: ignore[dict-item]
    )


def refusal(trials: Sequence[TrialResult], limit: int | None, instances: int, batch: int, **more: object) -> str | None:
    estimate = MemoryEstimate(SPACE, trials, limit=limit, batch_size=1)
    return estimate.refusal(wanted(instances, batch, **more))  # type: ignore[arg-type]


def test_what_surely_does_not_fit_is_refused_and_says_why() -> None:
    told = refusal(measured(WALK), 6 * GIB, 4, 128)
    assert told is not None
    available = r"6 GiB available \(estimated from 6 trials, 99.5% confidence\)"
    assert re.fullmatch(rf"needs at least [\d.]+ GiB of GPU memory, {available}", told)


@pytest.mark.parametrize(("instances", "batch"), [(1, 64), (2, 64), (3, 32), (4, 16)])
def test_what_fits_or_might_is_not(instances: int, batch: int) -> None:
    assert honest(instances, batch) < 6 * GIB
    assert refusal(measured(WALK), 6 * GIB, instances, batch) is None


def test_without_a_limit_the_room_on_the_gpu_is_it() -> None:
    trials = measured(WALK)
    assert refusal(trials, None, 4, 128) is None
    small = [
        each.model_copy(update={"gpu_memory": GpuMemory(gpu="", peak_bytes=m.peak_bytes, capacity_bytes=6 * GIB)})
        for each in trials
        if (m := each.gpu_memory)
    ]
    assert refusal(small, None, 4, 128) is not None
    # A limit beyond what there is changes nothing.
    assert refusal(small, 60 * GIB, 4, 128) is not None
    unknown = [each.model_copy(update={"gpu_memory": GpuMemory(gpu="", peak_bytes=1)}) for each in trials]
    assert refusal(unknown, None, 16, 256) is None


@pytest.mark.parametrize("count", range(5))
def test_few_trials_refuse_nothing(count: int) -> None:
    assert refusal(measured(WALK[:count]), GIB, 16, 256) is None


def test_trials_of_one_kind_refuse_nothing_of_another() -> None:
    # Many trials of the same candidate are still one.
    assert refusal(measured([(1, 8)] * 10), 2 * GIB, 16, 256) is None
    # Nothing is known of instances where all had one, nor of threads where all had none.
    batches = measured([(1, batch) for batch in (1, 4, 8, 16, 32, 64)])
    assert refusal(batches, 3 * GIB, 16, 64) is None
    assert refusal(measured(WALK), 6 * GIB, 8, 256, threads="4") is None
    # But what more instances take at the least is known from fewer.
    assert refusal(batches, 2 * GIB, 16, 128) is not None


def test_what_failed_or_was_not_measured_says_nothing() -> None:
    failed = [
        each.model_copy(update={"failure": trial(failure=Cause.OUT_OF_MEMORY).failure}) for each in measured(WALK)
    ]
    assert refusal(failed, GIB, 16, 256) is None
    assert refusal([trial(number, point()) for number in range(9)], GIB, 16, 256) is None


def test_without_batching_a_request_is_the_batch() -> None:
    off = SPACE.normalize({"dynamic_batching": "off", "instance_group.count": 2})
    assert memory_factors(SPACE, off, batch_size=4) == MemoryFactors(2, 4, (("threads", "off"),))
    delayed = wanted(2, 64, **{"dynamic_batching.max_queue_delay_microseconds": 500, "threads": "2"})
    assert memory_factors(SPACE, delayed, batch_size=1) == MemoryFactors(2, 64, (("threads", "2"),))  # type: ignore[arg-type]
    fixed = space(
        "schema: 1\nparameters: {instance_group.count: {field: 'instance_group[*].count', ladder: [1, 2]}}",
        config=MLP + "dynamic_batching { }\n",
    )
    assert memory_factors(fixed, fixed.normalize({"instance_group.count": 2}), batch_size=1) == MemoryFactors(2, 32, ())


def saturating(instances: int, batch: int) -> float:
    """Batches beyond 64 are never filled."""
    return honest(instances, min(batch, 64))


def shared(instances: int, batch: int) -> float:
    """All instances share the weights."""
    return 2 * GIB + instances * batch * 20 * 2**20


def stepped(instances: int, batch: int) -> float:
    """An allocator that doubles its arena."""
    need = honest(instances, batch)
    arena = float(GIB)
    while arena < need:
        arena *= 2
    return arena


@pytest.mark.parametrize("law", [honest, saturating, shared, stepped])
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1])
def test_what_would_have_fitted_is_hardly_ever_refused(law: Law, noise: float) -> None:
    """Over many walks of a search, whatever the law and the noise: the price of a wrong skip is the best candidate."""
    everything = list(itertools.product((1, 2, 3, 4, 8, 16), (1, 4, 8, 16, 32, 64, 128, 256)))
    wrong = asked = refused = 0
    for seed in range(10):
        chance = random.Random(seed)  # noqa: S311 (no secret)
        limit = round(chance.uniform(3, 12) * GIB)
        # A search that has measured what fits, and little else.
        likely = [pair for pair in everything if law(*pair) < 1.3 * limit]
        walk = [(1, 1), *chance.sample(likely, min(len(likely), chance.randint(5, 12)))]
        estimate = MemoryEstimate(SPACE, measured(walk, law, noise=noise, seed=seed), limit=limit, batch_size=1)
        for pair in everything:
            no = estimate.refusal(wanted(*pair)) is not None  # type: ignore[arg-type]
            refused += no
            if law(*pair) <= limit:
                asked += 1
                wrong += no
    assert wrong <= 0.005 * asked
    if law is honest and noise < 0.1:
        assert refused > 60
