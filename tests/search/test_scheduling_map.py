from __future__ import annotations

import pytest
from support.builders import MLP, space

from tuner.config.config import ModelConfig
from tuner.search.scheduling_map import SchedulingMap
from tuner.search.twin.scheduling import Scheduling


def test_an_assignment_means_what_its_config_does() -> None:
    built = space()
    schedulings = SchedulingMap(built)
    for assignment in list(built.assignments())[::7]:
        config = built.candidate(assignment).config
        told, setting = schedulings.of(assignment)
        expected = Scheduling.of(ModelConfig.parse(config.text, "config.pbtxt").proto)
        if not expected.dynamic_batching:
            told, expected = (Scheduling(each.instances) for each in (told, expected))
        assert told == expected
        assert setting == 0


def test_what_the_model_batches_by_itself_stays() -> None:
    more = "dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 300 }"
    built = space("schema: 1\nparameters: {max_batch_size: {ladder: [16]}}", MLP + more)
    told, _ = SchedulingMap(built).of(built.normalize({"max_batch_size": 16}))
    assert told == Scheduling(1, 16, dynamic_batching=True, preferred=(4, 8), delay_us=300)


def test_what_triton_prefers_follows_the_limit() -> None:
    own, served = MLP + "dynamic_batching { }", MLP + "dynamic_batching { preferred_batch_size: 32 }"
    built = space("schema: 1\nparameters: {max_batch_size: {ladder: [128]}}", own, served)
    told, _ = SchedulingMap(built).of(built.normalize({"max_batch_size": 128}))
    assert told == Scheduling(1, 128, dynamic_batching=True)


def test_a_count_is_of_each_gpu() -> None:
    config = MLP.replace("KIND_CPU count: 1", "KIND_GPU count: 2 gpus: [ 0, 1 ]")
    built = space("schema: 1\nparameters: {'instance_group[*].count': {ladder: [1, 3]}}", config, gpus=2)
    schedulings = SchedulingMap(built)
    counts = [schedulings.of(each)[0].instances for each in built.assignments()]
    assert counts == [2, 4, 6]


def test_settings_of_what_the_twin_does_not_know_are_told_apart() -> None:
    built = space(
        "schema: 1\nparameters:\n  max_batch_size: {ladder: [8]}\n"
        "  THREADS: {field: 'parameters[\"THREADS\"].string_value', ladder: [off, '1', '2']}"
    )
    schedulings = SchedulingMap(built)
    assert [p.name for p in schedulings.unknown] == ["THREADS"]
    two, one = ({"THREADS": "2"}, {"THREADS": "1"})
    numbers = [schedulings.of(built.normalize(each))[1] for each in (two, one, two, {})]
    assert numbers == [1, 2, 1, 0]


def test_groups_of_unlike_counts() -> None:
    config = MLP + "instance_group [ { kind: KIND_CPU count: 3 } ]"
    built = space("schema: 1\nparameters: {'instance_group[*].count': {ladder: [1, 2]}}", config)
    told, _ = SchedulingMap(built).of(built.baseline)
    assert told.instances == pytest.approx(4)
