from __future__ import annotations

import pytest
from support.builders import point, space, trial
from support.nvml import GIB

from tuner.core.errors import Cause
from tuner.core.slo import SLO
from tuner.measure.gpu_view import GpuMemory
from tuner.study.objectives import as_optuna_trial

LIMIT = SLO.parse(["p99=20ms"])


def test_the_values_are_throughput_within_the_slo_and_latency_at_low_load() -> None:
    told = as_optuna_trial(trial(0, point(1, 100, 5), point(8, 300, 19), point(16, 400, 30)), space(), LIMIT, {})
    assert told.values == [300, 5]
    assert told.constraints == {"slo": pytest.approx(5 / 20 - 1), "launch": -1.0}


def test_breaking_the_slo_everywhere_breaks_the_constraint() -> None:
    told = as_optuna_trial(trial(0, point(1, 100, 30), point(8, 300, 60)), space(), LIMIT, {})
    assert told.values[0] == 0
    assert told.constraints["slo"] == pytest.approx(0.5)


def test_a_failed_launch_is_complete_and_breaks_its_constraint() -> None:
    told = as_optuna_trial(trial(0, failure=Cause.OUT_OF_MEMORY), space(), LIMIT, {})
    assert told.state.is_finished()
    assert told.constraints == {"slo": 1.0, "launch": 1.0}


def test_memory_of_a_gpu_above_the_limit_breaks_its_constraint() -> None:
    fits, bursts = (
        trial(0, point()).model_copy(update={"gpu_memory": GpuMemory(gpu="GPU 0", peak_bytes=taken)})
        for taken in (8 * GIB, 12 * GIB)
    )
    known = [as_optuna_trial(each, space(), LIMIT, {}, 8 * GIB) for each in (fits, bursts, trial(0, point()))]
    assert [told.constraints["gpu_memory"] for told in known] == [0, 0.5, -1]
    assert "gpu_memory" not in as_optuna_trial(bursts, space(), LIMIT, {}).constraints


def test_what_a_failure_midway_measured_still_counts() -> None:
    told = as_optuna_trial(trial(0, point(1, 100, 5), failure=Cause.CRASHED), space(), LIMIT, {})
    assert told.values == [100, 5]
    assert told.constraints["launch"] == 1.0


def test_parameters_are_ladder_indices() -> None:
    built = space()
    told = as_optuna_trial(trial(0, point(), parameters=built.normalize({"instance_group.count": 3})), built, SLO(), {})
    assert told.params["instance_group.count"] == 2
    assert told.params["dynamic_batching"] == 0
