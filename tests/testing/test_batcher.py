"""The fake's batcher, live and request by request, against the simulator's, compiled and load by load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tuner.search.twin.batcher import Scenario, serve
from tuner.testing.fake.batcher import Batcher, Rules
from tuner.testing.fake.native import Executions
from tuner.testing.fake.timeline import Timeline

ROUNDING = 1e-7


@dataclass(eq=False)
class Item:
    arrived: float
    size: int = 1
    form: object = None
    cancelled: bool = False
    ended: float = float("nan")


class Served:
    """Serves arrivals in no time; all times are in s."""

    def __init__(self, rules: Rules, service_s: Sequence[float], instances: int, slowdown: float = 0.0) -> None:
        self.timeline = Timeline()
        self.batches: list[list[Item]] = []
        self._service_s = service_s
        self._executions = Executions(self.timeline, slowdown)
        self._batcher = Batcher(rules, [self] * instances, self.timeline)

    def execute(self, batch: Sequence[Any], at: float, done: Callable[[float], None]) -> None:
        self.batches.append(list(batch))

        def end(now: float) -> None:
            for item in batch:
                item.ended = now
            done(now)

        self._executions.begin(self._service_s[sum(item.size for item in batch)], at, end)

    def serve(self, items: Sequence[Item]) -> None:
        def arrival(item: Item) -> Callable[[float], None]:
            def arrive(at: float) -> None:
                self._batcher.arrive(item, at)

            return arrive

        for item in items:
            self.timeline.at(item.arrived, arrival(item))
        self.timeline.run(float("inf"))

    @property
    def sizes(self) -> list[int]:
        return [sum(item.size for item in batch) for batch in self.batches]


def simulated_ms(
    rules: Rules, service_s: Sequence[float], instances: int, due_ms: NDArray[np.float64], slowdown: float
) -> NDArray[np.float64]:
    """The simulator's latencies of the same arrivals, where nothing is by chance."""
    alone = np.array(service_s) * 1e3
    table = np.stack([alone * (1 + slowdown * busy) for busy in range(instances)], axis=1)
    preferred = np.array([size in rules.preferred for size in range(len(service_s))])
    latency_ms = np.full(len(due_ms), np.nan)
    scenario = Scenario(table, preferred, dynamic=rules.dynamic, delay_ms=rules.delay_s * 1e3, due_ms=due_ms)
    serve(scenario, latency_ms, 1)
    return latency_ms


@pytest.mark.parametrize("instances", [1, 2, 3])
@pytest.mark.parametrize("slowdown", [0.0, 0.7])
@pytest.mark.parametrize(
    "rules",
    [
        Rules(8),
        Rules(8, dynamic=True, preferred=(8,)),
        Rules(8, dynamic=True, preferred=(3, 6)),
        Rules(8, dynamic=True, preferred=(4,), delay_s=0.003),
        Rules(8, dynamic=True, preferred=(8,), delay_s=0.02),
        Rules(16, dynamic=True, preferred=(2, 5, 12), delay_s=0.001),
    ],
    ids=str,
)
@pytest.mark.parametrize("rate", [150, 700, 3000])
def test_it_batches_as_the_simulator_does(rules: Rules, instances: int, slowdown: float, rate: int) -> None:
    rng = np.random.default_rng([instances, rate, round(slowdown * 10)])
    due_ms = np.cumsum(rng.exponential(1e3 / rate, 400))
    service_s = [0.0, *(0.002 + 0.0006 * size for size in range(1, rules.largest + 1))]
    items = [Item(due / 1e3) for due in due_ms]
    served = Served(rules, service_s, instances, slowdown)
    served.serve(items)
    ours_ms = np.array([item.ended - item.arrived for item in items]) * 1e3
    assert ours_ms == pytest.approx(simulated_ms(rules, service_s, instances, due_ms, slowdown), abs=ROUNDING * 1e3)
    assert max(served.sizes) <= (rules.largest if rules.dynamic else 1)
    assert sum(served.sizes) == 400


def test_requests_of_unequal_form_share_no_batch() -> None:
    served = Served(Rules(8, dynamic=True, preferred=(8,)), [0.01] * 9, 1)
    served.serve([Item(0.0)] + [Item(0.001 * (1 + number), form=number // 3) for number in range(6)])
    assert [{item.form for item in batch} for batch in served.batches] == [{None}, {0}, {1}]


def test_requests_of_several_items_fill_a_batch_by_their_sizes() -> None:
    served = Served(Rules(8, dynamic=True, preferred=(8,)), [0.01] * 9, 1)
    served.serve([Item(0.0), *(Item(0.001, size=3) for _ in range(4))])
    assert served.sizes == [1, 6, 6]


def test_a_full_queue_takes_no_more() -> None:
    served = Served(Rules(4, dynamic=True, preferred=(4,), most_queued=2), [1.0] * 5, 1)
    taken = [served._batcher.arrive(Item(0.0), 0.0) for _ in range(4)]
    assert taken == [True, True, False, False]


def test_what_follows_from_an_event_is_in_time_though_its_turn_came_late() -> None:
    served = Served(Rules(1), [0.0, 0.01], 1)
    for number in range(3):
        served._batcher.arrive(item := Item(0.0), 0.0)
        assert item.arrived == 0, number
    served.timeline.run(5.0)
    assert [batch[0].ended for batch in served.batches] == pytest.approx([0.01, 0.02, 0.03])
