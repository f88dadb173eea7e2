"""The rules of Triton's scheduler, case by case: what the twin makes of them, and what the real server does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.builders import trial
from support.services import ON_TRITON, Services

from tuner.core.loads import Concurrency, Load, RequestRate
from tuner.measure.points import OperatingPoint
from tuner.measure.rules import LevelRules
from tuner.measure.session import open_session
from tuner.options.groups import LoadOptions
from tuner.search.twin.observed_trial import observed_trial
from tuner.search.twin.twin import Prediction, Twin
from tuner.testing.repositories import config_text

FIXED_MS, ITEM_MS = 8.0, 0.5
RULES = LevelRules(min_s=1.0, max_s=1.0)


def batching(*, preferred: tuple[int, ...] = (), delay_us: int = 0) -> str:
    sizes = f"preferred_batch_size: [ {', '.join(map(str, preferred))} ]" if preferred else ""
    delay = f"max_queue_delay_microseconds: {delay_us}" if delay_us else ""
    return f"dynamic_batching {{ {sizes} {delay} }}\n"


CASES = {
    "without dynamic batching each request is an execution": (config_text(), Concurrency(6)),
    "and instances take them in turns": (config_text(instances=2), Concurrency(6)),
    "who waits goes with the next batch": (config_text(more=batching()), Concurrency(12)),
    "a batch is no larger than max_batch_size": (config_text(max_batch_size=4, more=batching()), Concurrency(14)),
    "an idle instance takes what is there": (config_text(instances=3, more=batching()), RequestRate(40.0)),
    "batches are prepared ahead of the instances": (
        config_text(instances=2, max_batch_size=4, more=batching()),
        Concurrency(30),
    ),
    "a preferred size goes at once": (config_text(more=batching(preferred=(4,))), Concurrency(11)),
    "the larger of two preferred sizes is waited for": (
        config_text(more=batching(preferred=(2, 6), delay_us=200_000)),
        Concurrency(24),
    ),
    "with a delay an idle instance waits for a full batch": (
        config_text(max_batch_size=4, more=batching(delay_us=50_000)),
        Concurrency(8),
    ),
    "a delay that is over lets a part of a batch go": (config_text(more=batching(delay_us=30_000)), Concurrency(5)),
    "so it does with several instances": (config_text(instances=2, more=batching(delay_us=30_000)), Concurrency(6)),
    "requests that come when they are due": (config_text(more=batching()), RequestRate(300.0)),
    "and wait for each other": (config_text(more=batching(delay_us=10_000)), RequestRate(200.0)),
}


# Always more requests wait than a batch takes, so that a busy machine changes when batches go, not how large they are.
SATURATED = (
    "without dynamic batching each request is an execution",
    "and instances take them in turns",
    "a batch is no larger than max_batch_size",
    "batches are prepared ahead of the instances",
    "the larger of two preferred sizes is waited for",
)


@ON_TRITON
@pytest.mark.parametrize(("config", "load"), [CASES[name] for name in SATURATED], ids=SATURATED)
def test_the_twin_forms_the_batches_that_triton_forms(config: str, load: Load, services: Services) -> None:
    measured = measure(config, load, services)
    assert measured.average_batch_size == pytest.approx(predict(measured, config, load).batch, rel=0.1)


@pytest.mark.statistics
@ON_TRITON
@pytest.mark.parametrize(("config", "load"), CASES.values(), ids=CASES)
def test_the_twin_does_as_triton_does(config: str, load: Load, services: Services) -> None:
    measured = measure(config, load, services)
    predicted = predict(measured, config, load)
    assert measured.average_batch_size == pytest.approx(predicted.batch, rel=0.1)
    if isinstance(load, Concurrency):
        assert measured.throughput.value == pytest.approx(predicted.throughput, rel=0.15)
    assert measured.latency_ms["p50"].value < 1.2 * predicted.latency_ms


def predict(measured: OperatingPoint, config: str, load: Load) -> Prediction:
    """By a twin that knows how long the very executions took, so that all that is left to tell is who goes when."""
    answered = trial(0, measured.model_copy(update={"kept_up": None}), config=config)
    told = observed_trial(answered, "p99", at_rate=not isinstance(load, Concurrency))
    assert told
    if not isinstance(load, Concurrency):
        # Of an open loop Little's law says nothing.
        told = replace(told, levels=tuple(replace(level, overhead_ms=None) for level in told.levels))
    twin, scheduling = Twin([told], "p99"), told.scheduling
    if isinstance(load, Concurrency):
        return twin.predict(scheduling, 0, load.requests)
    gaps_ms = np.random.default_rng(0).exponential(1e3 / load.level, 4000)
    return twin.predict_at_rate(scheduling, 0, np.cumsum(gaps_ms))


def measure(config: str, load: Load, services: Services) -> OperatingPoint:
    slow = config + "".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
        for key, value in (("sleep_ms", FIXED_MS), ("sleep_ms_per_item", ITEM_MS))
    )
    service = services.load("slow", slow)
    health = service.ports.server.check
    with open_session(service.grpc, service.model, LoadOptions(), rules=RULES, health=health) as session:
        return session.measure(load)
