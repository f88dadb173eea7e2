from __future__ import annotations

import pytest
from support.builders import MLP, point, served_point, trial

from tuner.core.errors import Cause
from tuner.core.loads import RequestRate
from tuner.measure.client_view import ClientView
from tuner.measure.gpu_view import GpuUsage, GpuView
from tuner.measure.machine_load import MachineLoad
from tuner.measure.points import ServerBreakdown
from tuner.measure.server_resources import ServerResources
from tuner.search.twin.observed_trial import ObservedTrial, observed_trial
from tuner.search.twin.scheduling import Scheduling

GPUS = {"GPU-0": 90.0, "GPU-1": 30.0, "GPU-2": None}
TWO = MLP.replace("count: 1", "count: 2")


def told(result: ObservedTrial | None) -> ObservedTrial:
    assert result
    return result


def test_what_the_server_says_becomes_executions() -> None:
    # 40 executions of 10 ms in a second keep one instance busy for 0.4 of it.
    level = told(observed_trial(trial(0, served_point(4, batch=2, service_ms=10.0, queue_ms=5.0)), "p99")).levels[0]
    (execution,) = level.executions
    assert (execution.batch_size, execution.service_ms, execution.count, execution.busy) == (2, 10.0, 40, 1.0)
    assert level.batch == 2
    assert level.idle_ms is None
    # 4 requests under way at 80 a second take 50 ms, of which 15 in the server.
    assert level.overhead_ms == pytest.approx(35.0)


def test_who_is_busy_has_neighbours() -> None:
    one = told(observed_trial(trial(0, served_point(8, executions=160), config=TWO), "p99")).levels[0]
    assert one.executions[0].busy == pytest.approx(1 + 1.6 / 2)


def test_neighbours_are_as_large_as_executions_are_in_the_mean_over_time() -> None:
    served = served_point(8)
    assert served.server
    server = served.server.model_copy(update={"batches": {1: (30, 5.0), 4: (15, 10.0)}})
    level = told(observed_trial(trial(0, served.model_copy(update={"server": server}), config=TWO), "p99")).levels[0]
    assert [each.neighbour_size for each in level.executions] == [2.5, 2.5]


def test_a_server_that_tells_no_batch_sizes_tells_no_executions() -> None:
    served = served_point(8)
    assert served.server
    silent = served.model_copy(update={"server": served.server.model_copy(update={"batches": {}})})
    assert told(observed_trial(trial(0, silent), "p99")).levels[0].executions == ()


def test_idle_time_is_known_where_requests_wait() -> None:
    level = told(observed_trial(trial(0, served_point(16, executions=90, queue_ms=100.0)), "p99")).levels[0]
    assert level.idle_ms == pytest.approx(100 / 90)


def test_what_tells_nothing_is_left_out() -> None:
    assert observed_trial(trial(0, failure=Cause.CRASHED), "p99") is None
    assert observed_trial(trial(0), "p99") is None
    failing, rate = point(2, errors=3), point(RequestRate(50), kept_up=True)
    assert [level.concurrency for level in told(observed_trial(trial(0, point(1), failing, rate), "p99")).levels] == [1]


def test_without_a_word_of_the_server_only_the_client_is_believed() -> None:
    bare = point(1).model_copy(update={"server": None})
    server = served_point(1).server
    assert isinstance(server, ServerBreakdown)
    cached = served_point(2).model_copy(update={"server": server.model_copy(update={"cache_hits": 5})})
    levels = told(observed_trial(trial(0, bare, cached), "p50", setting=3)).levels
    assert [(level.executions, level.overhead_ms) for level in levels] == [((), None)] * 2
    assert levels[0].latency_ms == bare.latency_ms["p50"].value


def test_how_well_it_was_measured_is_known() -> None:
    level = told(observed_trial(trial(0, point(1, share=0.04)), "p99")).levels[0]
    assert level.throughput_deviation == pytest.approx(0.04 / 1.96, rel=0.01)
    assert level.latency_deviation == pytest.approx(0.1 / 1.96, rel=0.01)


def test_the_scheduling_is_that_of_the_effective_config() -> None:
    result = trial(0, point(1)).model_copy(update={"effective_config": TWO + "dynamic_batching {}"})
    assert told(observed_trial(result, "p99")).scheduling == Scheduling(2, 32, dynamic_batching=True)


def test_what_executions_take_of_the_devices() -> None:
    machine = MachineLoad(cores=8, idle_cores=6.0, elsewhere_cores=0.0, stolen_cores=0.0)
    gpus = tuple(GpuView(gpu="a GPU", uuid=uuid, utilization_percent=percent) for uuid, percent in GPUS.items())
    watched = served_point(4, batch=2, executions=40).model_copy(
        update={
            "server_resources": ServerResources(cpu_cores=1.4, memory_bytes=1),
            "machine": machine,
            "client": ClientView(cpu=0.1, processes=2),
            "gpu": GpuUsage(gpus=gpus),
        }
    )
    level = told(observed_trial(trial(0, watched, config=TWO), "p99", 3)).levels[0]
    # The load generator, on the same machine, takes 0.2 of a core; a GPU that says nothing does not count.
    for work, devices in ((level.cores_work, 1.6), (level.gpus_work, 1.2)):
        assert work
        assert (work.setting, work.batch_size, work.instances) == (3, 2.0, 2)
        assert (work.device_ms, work.devices) == pytest.approx((devices / 40 * 1e3, devices))
    assert (level.cores, level.gpus) == (8, 2)


def test_devices_of_which_nobody_says_anything() -> None:
    level = told(observed_trial(trial(0, served_point(4)), "p99")).levels[0]
    assert (level.cores_work, level.cores, level.gpus_work, level.gpus) == (None, None, None, 0)


def test_an_open_loop_tells_of_the_requests_under_way_on_average() -> None:
    """100 a second, which take 35 ms on average, are 3.5 at a time."""
    served = served_point(RequestRate(100), executions=100, queue_ms=20.0, service_ms=9.9, outside_ms=5.0)
    held = served.model_copy(update={"kept_up": True})
    (level,) = told(observed_trial(trial(0, held, config=TWO), "p99", at_rate=True)).levels
    assert (level.concurrency, level.throughput) == (1, 100)
    # 0.99 instances are busy on average; beside one, the other is as busy as on average.
    (execution,) = level.executions
    assert execution.busy == pytest.approx(1 + 0.99 / 2)
    # By the histogram, whose buckets are 5 % wide.
    assert level.overhead_ms == pytest.approx(5.0, abs=1.5)
    late = served.model_copy(update={"kept_up": False})
    assert observed_trial(trial(0, late), "p99", at_rate=True) is None
    assert observed_trial(trial(0, held), "p99") is None
