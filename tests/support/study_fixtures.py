"""Fixtures of tests that show results: a run folder with a study, and operating points."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.builders import identity, interval, judged, point, space, trial

from tuner.core.errors import Cause
from tuner.core.loads import Concurrency, RequestRate
from tuner.measure.client_view import ClientView
from tuner.measure.gpu_view import GpuUsage, GpuView
from tuner.measure.machine_load import MachineLoad
from tuner.measure.points import OperatingPoint
from tuner.measure.responses import ResponseTimes
from tuner.measure.server_resources import ServerResources
from tuner.recommend.verification import Verification
from tuner.stats.slo_verdict import SLOTest
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


@pytest.fixture
def study(run: RunFolder) -> Study:
    """A baseline, a better candidate, and one that failed, under p99 <= 25 ms."""
    built = space()
    study = Study.create_or_resume(run.database, identity())
    better = built.normalize({"dynamic_batching": "on", "max_batch_size": 64, "instance_group.count": 2})
    study.add(trial(0, point(1, 100, 10), point(2, 110, 20), parameters=built.baseline), built)
    config = built.candidate(better).config.text
    study.add(
        trial(1, point(1, 90, 12), point(8, 400, 20), point(16, 500, 40), parameters=better, config=config), built
    )
    study.add(trial(2, failure=Cause.CRASHED, parameters=built.normalize({"instance_group.count": 4})), built)
    return study


@pytest.fixture
def verified(study: Study) -> Study:
    """The same study, in which the better candidate was measured again beside the baseline."""
    test = SLOTest(percentile="p99", limit_ms=25.0, requests=5_000, over=1, design_effect=2.0)
    for number, load, rate in ((0, 2, 100), (1, 8, 390)):
        rounds = tuple(point(load, rate + n, 20).model_copy(update={"limits": (test,)}) for n in range(3))
        numbers = tuple(range(1, 4))
        study.add_verified([Verification(trial=number, load=Concurrency(load), rounds=rounds, numbers=numbers)])
    return study


@pytest.fixture
def open_point() -> OperatingPoint:
    """A rate that was too much for both sides, of a model that streams."""
    return judged(
        point(RequestRate(500), 450, 120, errors=3, kept_up=False),
        batch_size=4,
        client=ClientView(
            cpu=0.91, processes=2, send_lag_ms={"p50": 0.01, "p99": 2.5}, bound="the load generator took 91%"
        ),
        responses=ResponseTimes(
            time_to_first_ms={"p50": interval(3), "p90": interval(4), "p95": interval(5), "p99": interval(6)},
            inter_response_ms={"p50": 1.5, "p90": 2, "p95": 2.5, "p99": 3},
            per_request=8,
            per_s=3_600,
        ),
    )


@pytest.fixture
def gpu_point() -> OperatingPoint:
    """On two GPUs, of which one tells less."""
    views = (
        GpuView(
            gpu="GPU 0 (NVIDIA H100)",
            uuid="GPU-aaaa",
            utilization_percent=81.23456,
            memory_bytes=5 * 2**30,
            run_memory_bytes=6 * 2**30,
            idle_memory_bytes=2**30,
            total_memory_bytes=80 * 2**30,
            power_w=312.3456789,
            energy_j=312.3456789,
            temperature_c=61,
            sm_clock_mhz=1755,
            memory_clock_mhz=2619,
            throttle_reasons=("sw_power_cap",),
        ),
        GpuView(gpu="GPU 1 (NVIDIA H100)", uuid="GPU-bbbb", memory_bytes=7 * 2**30, power_w=100, throttle_reasons=()),
    )
    return point(8, 300, 20).model_copy(
        update={
            "gpu": GpuUsage(gpus=views, energy_per_inference_j=1.37449),
            "server_resources": ServerResources(cpu_cores=1.5, memory_bytes=300 * 2**20),
            "machine": MachineLoad(cores=16, idle_cores=12.25, elsewhere_cores=0.75, stolen_cores=0.0),
        }
    )
