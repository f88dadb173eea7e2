from __future__ import annotations

from collections.abc import Mapping

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from support.builders import MLP, ladders, space
from tritonclient.grpc import model_config_pb2

from tuner.core.errors import SpaceError
from tuner.space.candidate import Assignment
from tuner.space.place import AS_IS
from tuner.space.spec import OFF, ON, LadderValue

TUNED = MLP + "dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 300 }\n"
GROUPS = """\
max_batch_size: 8
instance_group [ { kind: KIND_GPU count: 2 gpus: [ 0 ] }, { kind: KIND_CPU count: 1 rate_limiter { priority: 2 } } ]
"""


def _proto(text: str) -> model_config_pb2.ModelConfig:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


class TestBounds:
    def test_the_default_space_of_a_plain_model(self) -> None:
        assert ladders(space()) == {
            "dynamic_batching": (OFF, ON),
            "max_batch_size": (2, 4, 8, 16, 32, 64, 128),
            "dynamic_batching.preferred_batch_size": (OFF, 2, 4, 8, 16, 32, 64),
            "dynamic_batching.max_queue_delay_microseconds": (OFF, 100, 500, 1000, 2000, 5000, 10000),
            "instance_group.count": (1, 2, 3, 4),
        }

    def test_instances_on_the_cpu_follow_the_cores(self) -> None:
        assert ladders(space(cpus=4))["instance_group.count"] == (1, 2, 3, 4, 6, 8)

    def test_what_is_no_number_of_instances_is_not_bounded_by_the_cores(self) -> None:
        count = "{field: 'instance_group[*].count', ladder: [off, 1, 2], max_per_cpu: 1}"
        assert ladders(space(f"schema: 1\nparameters: {{count: {count}}}", cpus=1))["count"] == (OFF, 1)

    def test_instances_on_a_gpu_do_not(self) -> None:
        built = space(config="max_batch_size: 8 instance_group [ { kind: KIND_GPU count: 1 } ]")
        assert ladders(built)["instance_group.count"] == (1, 2, 3, 4, 6, 8)

    def test_gpus_are_those_that_there_are(self) -> None:
        spec = "schema: 1\nparameters: {gpus: {field: 'instance_group[*].gpus', ladder: [0, [0, 1], [0, 2]]}}"
        config = "max_batch_size: 8 instance_group [ { kind: KIND_GPU count: 1 gpus: [ 1 ] } ]"
        assert ladders(space(spec, config=config, gpus=2))["gpus"] == (0, (0, 1), 1)
        assert space(spec, gpus=2).left_out["gpus"] == "none of its instances is on a GPU"
        # Of a server elsewhere they may not be known.
        assert (0, 2) in ladders(space(spec, config=config, gpus=0))["gpus"]

    def test_without_cores_that_are_known_there_is_no_bound(self) -> None:
        assert ladders(space(cpus=None))["instance_group.count"] == (1, 2, 3, 4, 6, 8, 12, 16)

    def test_a_model_that_does_not_batch(self) -> None:
        built = space(config="max_batch_size: 0 instance_group [ { kind: KIND_CPU count: 1 } ]")
        assert list(ladders(built)) == ["instance_group.count"]
        assert built.left_out["dynamic_batching"] == "the model does not batch (max_batch_size is 0)"

    def test_a_model_that_batches_sequences(self) -> None:
        built = space(config=MLP + "sequence_batching { }")
        assert list(ladders(built)) == ["instance_group.count"]
        assert built.left_out["max_batch_size"] == "the model batches sequences"

    def test_the_models_own_values_join(self) -> None:
        built = space(config=TUNED.replace("max_batch_size: 32", "max_batch_size: 24"))
        assert 24 in ladders(built)["max_batch_size"]
        assert (4, 8) in ladders(built)["dynamic_batching.preferred_batch_size"]
        assert 300 in ladders(built)["dynamic_batching.max_queue_delay_microseconds"]

    def test_batching_with_promises_to_clients_stays_on(self) -> None:
        built = space(config=MLP + "dynamic_batching { priority_levels: 2 default_priority_level: 1 }")
        assert built.left_out["dynamic_batching"] == "it can only be on"

    def test_batching_of_which_clients_notice_no_more_than_speed_may_be_switched_off(self) -> None:
        assert ladders(space(config=TUNED))["dynamic_batching"] == (OFF, ON)

    def test_gpus_vary_where_any_instance_is_on_one(self) -> None:
        text = "schema: 1\nparameters: {gpus: {field: 'instance_group[0].gpus', ladder: [[0], [1]]}}"
        assert "gpus" in ladders(space(text, GROUPS, gpus=2))
        assert space(text, MLP, gpus=2).left_out == {"gpus": "none of its instances is on a GPU"}

    def test_unlike_groups_keep_their_counts_unless_changed(self) -> None:
        built = space(config=GROUPS)
        assert built.baseline["instance_group.count"] == AS_IS
        assert built.candidate(built.baseline).config.text == GROUPS

    def test_own_preferred_sizes_that_do_not_vary_bound_the_batch(self) -> None:
        built = space("schema: 1\nparameters: {max_batch_size: {ladder: [2, 8, 16]}}", config=TUNED)
        assert ladders(built)["max_batch_size"] == (8, 16, 32)

    def test_what_triton_derives_is_no_value_of_the_models(self) -> None:
        config = MLP + "dynamic_batching { }\n"
        effective = MLP + "dynamic_batching { preferred_batch_size: [ 32 ] }\n"
        built = space(config=config, effective=effective)
        assert ladders(built) == ladders(space(config=config))
        assert built.baseline["dynamic_batching.preferred_batch_size"] == OFF
        fixed = space("schema: 1\nparameters: {max_batch_size: {ladder: [2, 8, 64]}}", config, effective)
        assert ladders(fixed)["max_batch_size"] == (2, 8, 32, 64)

    def test_a_model_without_a_file_may_have_larger_batches_than_the_server_chose(self) -> None:
        effective = MLP.replace("32", "4") + "dynamic_batching { preferred_batch_size: [ 4 ] }\n"
        built = space(config=None, effective=effective)
        changed = _proto(built.candidate(built.normalize({"max_batch_size": 128})).config.text)
        assert (changed.max_batch_size, list(changed.dynamic_batching.preferred_batch_size)) == (128, [])
        assert [each.name for each in changed.input] == ["X"]

    def test_requests_and_warm_ups_bound_the_batch(self) -> None:
        spec = (
            "schema: 1\nparameters: {dynamic_batching: {ladder: [off, on]}, max_batch_size: {ladder: [8, 16, 32, 64]}}"
        )
        built = space(spec, batch_size=32)
        assert ladders(built)["max_batch_size"] == (32, 64)
        assert built.notes == ("max_batch_size: 8, 16 left out: requests hold 32 inferences (-b)",)
        warmed = space(spec, MLP + "model_warmup { name: 'w' batch_size: 16 }\n", batch_size=2)
        assert ladders(warmed)["max_batch_size"] == (16, 32, 64)
        assert warmed.notes == ("max_batch_size: 8 left out: the model's warm-up sends batches of 16",)
        assert space(spec).notes == ()

    def test_the_limit_alone_changes_nothing_without_dynamic_batching(self) -> None:
        spec = "schema: 1\nparameters: {max_batch_size: {ladder: [8, 64]}}"
        assert space(spec).left_out["max_batch_size"] == (
            "without dynamic batching each request is executed alone; add dynamic_batching to the search space"
        )
        assert ladders(space(spec, MLP + "dynamic_batching { }"))["max_batch_size"] == (8, 32, 64)

    def test_completed_batching_is_switched_off_only_where_that_works(self) -> None:
        own = 'backend: "onnxruntime"\nmax_batch_size: 32\n'
        completed = MLP.replace("python", "onnxruntime") + "dynamic_batching { preferred_batch_size: [ 32 ] }\n"
        built = space(config=own, effective=completed)
        off = built.candidate(built.normalize({"dynamic_batching": OFF}))
        # A backend that finds inputs and outputs described completes nothing.
        assert off.config.text.startswith(own)
        assert [each.name for each in (*off.config.proto.input, *off.config.proto.output)] == ["X", "Y"]
        assert not off.config.proto.HasField("dynamic_batching")
        assert built.candidate(built.baseline).config.text == own
        python = space(config=MLP, effective=MLP + "dynamic_batching { preferred_batch_size: [ 32 ] }\n")
        reason = "it can only be on: the model's auto_complete_config switches it on"
        assert python.left_out["dynamic_batching"] == reason

    def test_a_field_that_config_pbtxt_does_not_have(self) -> None:
        with pytest.raises(SpaceError, match="max_batchsize.*did you mean 'max_batch_size'"):
            space("schema: 1\nparameters: {max_batchsize: {ladder: [2]}}")

    @pytest.mark.parametrize(
        ("parameter", "complaint"),
        [
            ("max_batch_size: {ladder: [2, many]}", "search space: max_batch_size: .*many"),
            ("dynamic_batching: {ladder: [off, 3]}", "search space: dynamic_batching: "),
            ("max_batch_size: {ladder: [[2, 4]]}", "search space: max_batch_size: .*must be one value"),
        ],
    )
    def test_values_that_a_field_does_not_take(self, parameter: str, complaint: str) -> None:
        with pytest.raises(SpaceError, match=complaint):
            space(f"schema: 1\nparameters: {{{parameter}}}")


class TestAssignments:
    def test_the_baseline_changes_nothing(self) -> None:
        for config in (MLP, TUNED, GROUPS):
            built = space(config=config)
            assert built.candidate(built.baseline).config.text == config

    def test_without_dynamic_batching_its_settings_and_the_batch_do_not_count(self) -> None:
        settled = space().normalize({"max_batch_size": 64, "dynamic_batching.max_queue_delay_microseconds": 500})
        assert settled == {"dynamic_batching": OFF, "instance_group.count": 1}

    @pytest.mark.parametrize(("preferred", "expected"), [(8, 8), (16, OFF), (64, OFF)])
    def test_preferred_sizes_stay_below_the_limit(self, preferred: int, expected: LadderValue) -> None:
        wanted: Mapping[str, LadderValue] = {
            "dynamic_batching": ON,
            "max_batch_size": 16,
            "dynamic_batching.preferred_batch_size": preferred,
        }
        assert space().normalize(wanted)["dynamic_batching.preferred_batch_size"] == expected

    def test_several_preferred_sizes_lose_those_above_the_limit(self) -> None:
        built = space(config=TUNED)
        settled = built.normalize({"max_batch_size": 4})
        assert settled["dynamic_batching.preferred_batch_size"] == OFF
        # The limit itself may be one of several.
        assert built.normalize({"max_batch_size": 8})["dynamic_batching.preferred_batch_size"] == (4, 8)
        assert _proto(built.candidate(settled).config.text).dynamic_batching.preferred_batch_size == []

    def test_conditions_of_the_file(self) -> None:
        built = space(
            "schema: 1\nparameters:\n  instance_group.count: {field: 'instance_group[*].count', ladder: [1, 2]}\n"
            "  max_queue_size: {field: dynamic_batching.default_queue_policy.max_queue_size, ladder: [off, 8],"
            " when: {instance_group.count: [2]}}"
        )
        assert "max_queue_size" not in built.normalize({"max_queue_size": 8})
        assert built.normalize({"max_queue_size": 8, "instance_group.count": 2})["max_queue_size"] == 8

    def test_all_assignments_are_distinct(self) -> None:
        built = space(
            "schema: 1\nparameters: {dynamic_batching: {ladder: [off, on]}, max_batch_size: {ladder: [2, 4]}}"
        )
        assert list(built.assignments()) == [
            {"dynamic_batching": OFF},
            {"dynamic_batching": ON, "max_batch_size": 2},
            {"dynamic_batching": ON, "max_batch_size": 4},
            {"dynamic_batching": ON, "max_batch_size": 32},
        ]

    @given(st.data())
    def test_any_candidate_is_one_that_triton_takes(self, data: st.DataObject) -> None:
        built = space(config=data.draw(st.sampled_from([MLP, TUNED])))
        drawn = {p.name: data.draw(st.integers(0, len(p.ladder) - 1)) for p in built.parameters}
        assignment = built.assignment(drawn)
        config = _proto(built.candidate(assignment).config.text)
        assert all(0 < size <= config.max_batch_size for size in config.dynamic_batching.preferred_batch_size)
        assert config.HasField("dynamic_batching") == (assignment["dynamic_batching"] == ON)
        assert [group.count for group in config.instance_group] == [assignment["instance_group.count"]]
        assert built.assignment(built.indices(assignment)) == assignment


class TestEdits:
    def test_only_the_named_fields_change(self) -> None:
        built = space(config=GROUPS)
        changed = _proto(built.candidate(built.normalize({"instance_group.count": 2})).config.text)
        assert [group.count for group in changed.instance_group] == [2, 2]
        assert list(changed.instance_group[0].gpus) == [0]
        assert changed.instance_group[1].rate_limiter.priority == 2

    def test_a_group_of_our_own_says_where_it_runs(self) -> None:
        bare = "max_batch_size: 8\n"
        built = space(config=bare, effective=bare + "instance_group [ { kind: KIND_CPU count: 1 } ]")
        (group,) = _proto(built.candidate(built.normalize({"instance_group.count": 3})).config.text).instance_group
        assert (group.count, group.kind) == (3, group.KIND_CPU)

    def test_switching_on_leaves_the_users_own_settings(self) -> None:
        kept = MLP + "dynamic_batching { preserve_ordering: true max_queue_delay_microseconds: 100 }\n"
        built = space(config=kept)
        changed = _proto(built.candidate(built.normalize({"dynamic_batching.preferred_batch_size": 8})).config.text)
        assert changed.dynamic_batching.preserve_ordering
        assert changed.dynamic_batching.max_queue_delay_microseconds == 100
        assert list(changed.dynamic_batching.preferred_batch_size) == [8]

    def test_what_another_version_stored_is_taken_for_the_models_own(self) -> None:
        built = space(config=MLP + "dynamic_batching { }\n")
        stored: Assignment = {
            "dynamic_batching": ON,
            "max_batch_size": 64,
            "dynamic_batching.preferred_batch_size": 31,
            "gone": 1,
        }
        assert built.recall(stored) == built.normalize({"dynamic_batching": ON, "max_batch_size": 64})

    def test_equal_candidates_have_one_fingerprint(self) -> None:
        built = space()
        one, same, other = (
            built.candidate(built.normalize(wanted)).fingerprint
            for wanted in ({"max_batch_size": 64}, {"max_batch_size": 8}, {"instance_group.count": 2})
        )
        assert one == same != other


NESTED = """\
schema: 1
parameters:
  a: {field: 'parameters["a"].string_value', ladder: [off, "1"]}
  b: {field: 'parameters["b"].string_value', ladder: [off, "1"], when: {a: ["1"]}}
  c: {field: 'parameters["c"].string_value', ladder: [off, "1"], when: {b: ["1"]}}
"""


def test_a_condition_on_what_has_no_effect_itself_does_not_hold() -> None:
    built = space(NESTED)
    assert built.normalize({"b": "1", "c": "1"}) == built.baseline
    assert built.normalize({"a": "1", "c": "1"}) == {"a": "1", "b": OFF}
    every = list(built.assignments())
    assert len(every) == 4
    # What is stored comes back as it was, or a search would launch it for ever.
    assert [built.recall(assignment) for assignment in every] == every
