"""The grids that benchmarks/search.py replays searches against."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

import pytest
from grid import AGAIN, LAW_SPACE, Grid, agreement, alike_in_ort, recorded
from law import LOADS, Law, operating_point

from tuner.search.scheduling_map import SchedulingMap
from tuner.space.candidate import Assignment, key_of

pytestmark = pytest.mark.slow

BATCHED: Assignment = {
    "dynamic_batching": "on",
    "instance_group.count": 1,
    "intra_op_thread_count": "2",
    "spinning": "off",
}


@pytest.fixture(scope="module")
def stored() -> Grid:
    return Grid.of("law")


def test_the_stored_grid_is_what_the_law_gives(stored: Grid) -> None:
    schedulings = SchedulingMap(stored.space)
    for trial in stored.trials[:: len(stored.trials) // 3]:
        scheduling, _ = schedulings.of(trial.parameters)
        for point, load in zip(trial.curve, LOADS, strict=True):
            made = operating_point(scheduling, Law.of(trial.parameters), load)
            assert point.throughput.value == pytest.approx(made.throughput.value, rel=1e-3)
            assert point.latency_ms["p99"].value == pytest.approx(made.latency_ms["p99"].value, rel=1e-3)


def test_it_is_large_and_has_parameters_that_the_simulator_does_not_know(stored: Grid) -> None:
    assert len(stored.trials) == len(stored.by_assignment) >= 500
    assert len(SchedulingMap(stored.space).unknown) >= 5
    assert stored.spec == LAW_SPACE


def test_a_grid_is_read_as_it_was_written(stored: Grid, tmp_path: Path) -> None:
    few = Grid("few", "here", stored.trials[:5], (0.1, 0.2), stored.spec, stored.machine_of_space)
    path = recorded("few", tmp_path)
    few.write(path)
    again = Grid.read(path)
    assert (again.model, again.machine, again.launch_off, again.spec) == (
        few.model,
        few.machine,
        few.launch_off,
        few.spec,
    )
    for one, other in zip(again.trials, few.trials, strict=True):
        assert one.parameters == other.parameters
        assert [p.server for p in one.curve] == [p.server for p in other.curve]
        for point, before in zip(one.curve, other.curve, strict=True):
            assert point.throughput.high == pytest.approx(before.throughput.high, rel=1e-3)
            assert point.latency_ms["p99"].low == pytest.approx(before.latency_ms["p99"].low, rel=1e-3)
    launched = again.launched(again.trials[3].parameters)
    assert launched.effective_config == again.space.candidate(again.trials[3].parameters).config.text


def test_pooled_candidates_that_cannot_differ_are_alike() -> None:
    recorded_once = Grid.of("ort")
    pooled = recorded_once.pooled(alike_in_ort)
    assert [each.parameters for each in pooled.trials] == [each.parameters for each in recorded_once.trials]
    groups: dict[Hashable, list[tuple[float, float]]] = {}
    for before, after in zip(recorded_once.trials, pooled.trials, strict=True):
        for point, median in zip(before.curve, after.curve, strict=True):
            values = groups.setdefault(alike_in_ort(after.parameters, point.load.level), [])
            values.append((point.throughput.value, median.throughput.value))
    for values in groups.values():
        measured, medians = zip(*values, strict=True)
        assert len(set(medians)) == 1
        assert len(set(measured)) > 1
        assert min(measured) <= medians[0] <= max(measured)


def test_two_recordings_agree_on_all_that_is_not_pooled() -> None:
    passes = Grid.of("ort"), Grid.of(AGAIN)

    def same_load(_assignment: Assignment, load: float) -> Hashable:
        return load

    def same_but_spinning(assignment: Assignment, load: float) -> Hashable:
        return load, key_of({name: value for name, value in assignment.items() if name != "spinning"})

    assert all(abs(each) < 0.1 for each in agreement(*passes, alike_in_ort))
    assert all(each > 0.8 for each in agreement(*passes, same_load))
    assert all(each > 0.5 for each in agreement(*passes, same_but_spinning))


def test_points_of_all_recordings_are_pooled() -> None:
    one, other = Grid.of("ort"), Grid.of(AGAIN)
    once, twice = one.pooled(alike_in_ort), one.pooled(alike_in_ort, other)
    assert [each.parameters for each in twice.trials] == [each.parameters for each in one.trials]
    ratios = [
        t.curve[0].throughput.value / o.curve[0].throughput.value
        for o, t in zip(once.trials, twice.trials, strict=True)
    ]
    assert max(ratios) > 1 > min(ratios)
    assert [t.curve[0].throughput.value for t in twice.pooled(alike_in_ort, twice).trials] == [
        t.curve[0].throughput.value for t in twice.trials
    ]


def test_a_load_cannot_fill_larger_batches() -> None:
    one, other = ({**BATCHED, "max_batch_size": size} for size in (16, 64))
    assert alike_in_ort(one, 16) == alike_in_ort(other, 16)
    assert alike_in_ort(one, 64) != alike_in_ort(other, 64)
    assert alike_in_ort(one, 4) != alike_in_ort(one, 16)
    assert alike_in_ort(one, 4) != alike_in_ort({**one, "instance_group.count": 2}, 4)


def test_the_first_grids_are_read_as_before() -> None:
    grid = Grid.of("mlp")
    assert len(grid.trials) == 44
    assert grid.launched(grid.trials[3].parameters) == grid.trials[3]
