from __future__ import annotations

import pytest
from support.builders import MLP, served_point, trial

from tuner.core.loads import RequestRate
from tuner.measure.client_view import ClientView
from tuner.measure.gpu_view import GpuUsage, GpuView
from tuner.measure.points import OperatingPoint
from tuner.measure.server_resources import ServerResources
from tuner.recommend.front import TrialPoint
from tuner.recommend.utilisation import Limit, Utilisation, utilisation

BATCHING = MLP + "dynamic_batching { }\n"
DELAYED = MLP + "dynamic_batching { max_queue_delay_microseconds: 5000 }\n"
TWO = MLP.replace("count: 1", "count: 2")


def read(point: OperatingPoint, config: str = MLP) -> Utilisation:
    return utilisation(TrialPoint(trial(1, point, config=config), point))


def on_gpu(point: OperatingPoint, percent: float | None) -> OperatingPoint:
    view = GpuView(gpu="GPU 0", uuid="GPU-0", utilization_percent=percent)
    return point.model_copy(update={"gpu": GpuUsage(gpus=(view,))})


def test_shares_are_of_the_servers_own_numbers() -> None:
    point = served_point(8, batch=4, executions=40, queue_ms=5, service_ms=15)
    resources = ServerResources(cpu_cores=1.5, memory_bytes=1)
    found = read(point.model_copy(update={"server_resources": resources}), BATCHING)
    assert (found.instances, found.average_batch, found.largest_batch) == (1, 4, 32)
    assert found.queue_share == pytest.approx(0.25)
    assert found.waiting == pytest.approx(160 * 0.005)
    assert found.instance_busy == pytest.approx(0.6)
    assert (found.gpu_utilisation, found.cpu_cores) == (None, 1.5)


def test_instances_share_the_work() -> None:
    assert read(served_point(2, executions=100), TWO).instance_busy == pytest.approx(0.5)


def test_what_is_outside_of_queue_and_model_is_known_to_a_few_percent() -> None:
    assert read(served_point(service_ms=6, outside_ms=4)).elsewhere_share == pytest.approx(0.4, abs=0.03)
    # A bucket of latencies is not known to the last percent.
    assert read(served_point(service_ms=10, outside_ms=0)).elsewhere_share == pytest.approx(0, abs=0.03)


def test_an_execution_that_the_first_read_cut_is_no_contradiction() -> None:
    assert read(served_point(executions=101)).instance_busy == 1


@pytest.mark.parametrize(
    "point",
    [
        served_point(wall_s=None),
        served_point(executions=2, service_ms=400),  # too few between two reads
        served_point(8, executions=300),  # several at once: such a backend is asynchronous
    ],
)
def test_how_busy_instances_are_is_not_always_known(point: OperatingPoint) -> None:
    assert read(point).instance_busy is None


def test_what_the_server_does_not_say_is_none() -> None:
    silent = served_point().model_copy(update={"server": None})
    assert read(silent) == Utilisation(instances=1, largest_batch=1)


def test_an_ensemble_says_nothing_of_instances() -> None:
    ensemble = 'platform: "ensemble"\nensemble_scheduling { step [ { model_name: "a" model_version: -1 } ] }\n'
    found = read(served_point(executions=95), ensemble)
    assert (found.instances, found.instance_busy, found.largest_batch) == (0, None, None)


@pytest.mark.parametrize(
    ("more", "largest"),
    [
        ("", 1),
        ("dynamic_batching { }", 32),
        ("dynamic_batching { preferred_batch_size: [ 4, 8 ] }", 8),
        ("sequence_batching { }", None),
    ],
)
def test_how_large_a_batch_may_be(more: str, largest: int | None) -> None:
    assert read(served_point(), MLP + more).largest_batch == largest


def test_a_request_of_several_inferences_is_a_batch_by_itself() -> None:
    point = served_point(4, batch=8, executions=95, queue_ms=30).model_copy(update={"batch_size": 8})
    found = read(point)
    assert (found.largest_batch, found.limit) == (8, Limit.INSTANCES)


class TestWhatLimits:
    def test_instances_that_are_full(self) -> None:
        assert read(served_point(4, executions=90, queue_ms=30)).limit is Limit.INSTANCES

    def test_instances_that_hand_over_while_others_wait_are_full_too(self) -> None:
        assert read(served_point(8, executions=80, queue_ms=70)).limit is Limit.INSTANCES
        # Here less than one waits.
        assert read(served_point(2, executions=80, queue_ms=8)).limit is None

    def test_full_instances_whose_batches_may_grow(self) -> None:
        assert read(served_point(16, batch=8, executions=95, queue_ms=10), BATCHING).limit is Limit.BATCHES
        assert read(served_point(64, batch=31, executions=95, queue_ms=10), BATCHING).limit is Limit.INSTANCES

    def test_a_gpu_that_never_rests(self) -> None:
        busy = served_point(4, executions=95, queue_ms=30)
        assert read(on_gpu(busy, 97)).limit is Limit.GPU
        assert read(on_gpu(busy, 60)).limit is Limit.INSTANCES
        assert read(on_gpu(busy, None)).limit is Limit.INSTANCES
        # Nothing waits for it.
        assert read(on_gpu(served_point(executions=85), 97)).limit is Limit.MODEL

    def test_the_models_own_time(self) -> None:
        assert read(served_point(executions=29)).limit is Limit.MODEL

    def test_time_on_the_way(self) -> None:
        assert read(served_point(executions=29, outside_ms=25)).limit is Limit.ELSEWHERE

    def test_the_queue_delay(self) -> None:
        waits = served_point(8, batch=4, executions=40, queue_ms=4)
        assert read(waits, DELAYED).limit is Limit.QUEUE_DELAY
        assert read(waits, BATCHING).limit is None
        # With a delay, those that wait do not say that the instance is full.
        wait = served_point(64, batch=31, executions=80, queue_ms=5)
        assert read(wait, DELAYED).limit is Limit.QUEUE_DELAY
        assert read(wait, BATCHING).limit is Limit.INSTANCES

    def test_the_load_generator_before_all_else(self) -> None:
        full = served_point(4, executions=95, queue_ms=30)
        bound = full.model_copy(update={"client": ClientView(cpu=0.9, bound="it took 90% of a core")})
        assert read(bound).limit is Limit.CLIENT

    def test_a_rate_that_is_too_high(self) -> None:
        rate = served_point(RequestRate(200), executions=95, queue_ms=300)
        assert read(rate.model_copy(update={"kept_up": False})).limit is Limit.RATE
        assert read(rate.model_copy(update={"kept_up": True})).limit is Limit.INSTANCES
