from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.effective import EFFECTIVE

from tuner.config.config import ModelConfig
from tuner.core.errors import SpaceError
from tuner.core.machine import Machine, NumaNode
from tuner.core.nvml import Gpu
from tuner.space.conditions import Terms
from tuner.space.place import value_at
from tuner.space.space import SearchSpace
from tuner.space.spec import OFF, ON, SpaceSpec, load_space, parse_space

SCHEDULING = (
    "dynamic_batching",
    "max_batch_size",
    "dynamic_batching.preferred_batch_size",
    "dynamic_batching.max_queue_delay_microseconds",
    "instance_group.count",
)


def composed(key: str, text: str = "backend: auto", *, cpus: int = 4, nodes: int = 1, **terms: Any) -> SearchSpace:
    """The space of a model of a backend, on a machine with a GPU if it is on one."""
    config = ModelConfig.parse(EFFECTIVE.get(key, key), "effective")
    gpus = (Gpu(0, "GPU-0", "GPU", 1 << 30),) if "KIND_GPU" in config.text else ()
    machine = Machine(cpus, gpus, "x86_64", tuple(NumaNode(number, "0-3") for number in range(nodes)))
    spec = load_space(text) if "\n" not in text and ":" not in text else parse_space(f"schema: 1\n{text}", "s.yaml")
    return SearchSpace.build(spec, config, config, machine, terms=Terms(**terms))


def beyond(space: SearchSpace) -> dict[str, tuple[Any, ...]]:
    """The ladders of parameters other than those of scheduling."""
    return {p.name: p.ladder for p in space.parameters if p.name not in SCHEDULING}


class TestAuto:
    @pytest.mark.parametrize(
        ("key", "expected"),
        [
            ("onnxruntime", {"intra_op_thread_count": (OFF, 1, 2, 4), "openvino": (OFF, ON)}),
            ("onnxruntime gpu", {"cudnn_conv_algo_search": (OFF, 1, 2), "tensorrt": (OFF, ON)}),
            (
                "tensorrt",
                {
                    "optimization.cuda.graphs": (OFF, True),
                    "optimization.eager_batching": (OFF, True),
                    "optimization.cuda.busy_wait_events": (OFF, True),
                    "optimization.cuda.output_copy_stream": (OFF, True),
                    "optimization.gather_kernel_buffer_threshold": (OFF, 8),
                },
            ),
            ("pytorch", {"INTRA_OP_THREAD_COUNT": (OFF, 1, 2, 4), "DISABLE_OPTIMIZED_EXECUTION": (OFF, True)}),
            ("pytorch gpu", {"DISABLE_OPTIMIZED_EXECUTION": (OFF, True), "ENABLE_WEIGHT_SHARING": (OFF, True)}),
            ("torch_aoti", {}),
            (
                "openvino",
                {
                    "PERFORMANCE_HINT": (OFF, "LATENCY", "THROUGHPUT"),
                    "NUM_STREAMS": (OFF, 1, 2, 4),
                    "INFERENCE_NUM_THREADS": (OFF, 1, 2, 4),
                },
            ),
            ("python", {}),
            ("fil", {"cpu_nthread": (OFF, 1, 2, 4)}),
            (
                "fil gpu",
                {
                    "chunk_size": (OFF, 1, 4, 16, 32),
                    "layout": (OFF, "depth_first", "breadth_first", "layered"),
                    "transfer_threshold": (OFF, 2, 5),
                },
            ),
            ("dali", {"num_threads": (OFF, 1, 2, 4)}),
            ("tensorflow", {"TF_NUM_INTRA_THREADS": (OFF, 1, 2, 4)}),
            ("tensorflow gpu", {}),
            ('backend: "mine"\nmax_batch_size: 8\ninstance_group [ { kind: KIND_CPU count: 1 } ]\n', {}),
        ],
    )
    def test_the_backends_parameters_join_those_of_scheduling(self, key: str, expected: dict[str, Any]) -> None:
        space = composed(key, "auto")
        assert beyond(space) == expected
        if key != "torch_aoti":  # it does not batch
            assert {p.name for p in space.parameters} >= set(SCHEDULING)

    def test_for_what_is_not_known_it_is_the_default_space(self) -> None:
        key = 'backend: "mine"\nmax_batch_size: 8\ninstance_group [ { kind: KIND_CPU count: 1 } ]\n'
        assert composed(key, "auto").parameters == composed(key, "default").parameters

    def test_what_may_change_answers_needs_leave(self) -> None:
        assert "HINT_BF16" not in beyond(composed("openvino"))
        assert "--allow-numerics" in composed("openvino").not_searched["HINT_BF16"]
        allowed = composed("onnxruntime gpu", allow_numerics=True)
        assert beyond(allowed)["tensorrt.precision_mode"] == (OFF, "FP16", "BF16")
        (precision,) = (p for p in allowed.parameters if p.name == "tensorrt.precision_mode")
        assert precision.marked == ("FP16", "BF16")
        assert "precision_mode" not in str(allowed.normalize({"tensorrt": OFF, "tensorrt.precision_mode": "FP16"}))

    def test_the_own_cores_join_the_ladder(self) -> None:
        assert beyond(composed("onnxruntime", cpus=6))["intra_op_thread_count"] == (OFF, 1, 2, 4, 6)

    def test_on_one_core_there_are_no_threads_to_choose(self) -> None:
        space = composed("onnxruntime", cpus=1)
        assert "intra_op_thread_count" not in beyond(space)
        assert space.not_searched["intra_op_thread_count"] == "the machine has 1 core"

    def test_instances_times_threads_fit_the_cores(self) -> None:
        settled = composed("onnxruntime").normalize({"instance_group.count": 2, "intra_op_thread_count": 4})
        assert (settled["instance_group.count"], settled["intra_op_thread_count"]) == (2, 2)

    def test_numbers_are_written_as_the_text_that_the_field_holds(self) -> None:
        space = composed("onnxruntime")
        candidate = space.candidate(space.normalize({"intra_op_thread_count": 2}))
        assert candidate.config.proto.parameters["intra_op_thread_count"].string_value == "2"
        own = candidate.config.text
        again = composed(own)
        assert again.baseline["intra_op_thread_count"] == 2
        assert again.candidate(again.baseline).config.text == own

    def test_streams_and_hint_exclude_each_other_and_streams_need_instances(self) -> None:
        space = composed("openvino")
        settled = space.normalize({"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": 4})
        assert (settled["PERFORMANCE_HINT"], settled["NUM_STREAMS"]) == ("THROUGHPUT", OFF)
        assert space.normalize({"NUM_STREAMS": 4})["instance_group.count"] == 4

    def test_captured_graphs_have_the_preferred_sizes(self) -> None:
        settled = composed("tensorrt").normalize({"dynamic_batching": ON, "optimization.cuda.graphs": True})
        assert settled["dynamic_batching.preferred_batch_size"] == (2, 4, 8)

    def test_what_a_server_fixes_needs_a_server_for_each_candidate(self) -> None:
        reloaded = composed("pytorch", relaunches=False)
        assert "INTRA_OP_THREAD_COUNT" not in beyond(reloaded)
        assert "--isolation relaunch" in reloaded.not_searched["INTRA_OP_THREAD_COUNT"]
        # A reloaded server is started anew for other arguments; a running one is not.
        assert reloaded.not_searched["grpc-infer-thread-count"].startswith("on request")
        remote = composed("pytorch", relaunches=False, is_remote=True)
        assert remote.not_searched["grpc-infer-thread-count"] == "the server at --url keeps its arguments"

    def test_a_stored_space_is_the_same_again(self) -> None:
        for key in ("onnxruntime", "tensorrt", "openvino"):
            space = composed(key, "auto", allow_numerics=True)
            stored = SpaceSpec.model_validate_json(space.spec.model_dump_json())
            again = SearchSpace.build(stored, space.base, space.effective, space.machine)
            assert again.parameters == space.parameters
            assert [law.spec for law in again.laws] == [law.spec for law in space.laws]


class TestConditions:
    def test_the_version_of_triton(self) -> None:
        old = composed("fil gpu", version="2.50.0")
        assert old.not_searched["layout"] == "it needs Triton 2.61 or newer"
        assert "layout" in beyond(composed("fil gpu", version="2.69.0"))

    def test_arguments_of_the_server(self) -> None:
        argument = "--backend-config=onnxruntime,enable-global-threadpool=1"
        pooled = composed("onnxruntime", arguments=(argument,))
        assert pooled.not_searched["intra_op_thread_count"].startswith("it has no effect: the global thread pool")
        assert "response_cache.enable" not in beyond(composed("python", "backend: auto"))
        named = "backend: auto\nparameters: {response_cache.enable: {}}"
        cached = composed("python", named, arguments=("--cache-config=local,size=1000000",))
        assert beyond(cached) == {"response_cache.enable": (OFF, True)}

    def test_another_processor(self) -> None:
        config = ModelConfig.parse(EFFECTIVE["onnxruntime"], "c")
        space = SearchSpace.build(load_space("auto"), config, config, Machine(4, (), "aarch64"))
        assert space.not_searched["openvino"] == "it needs a processor of type x86_64"

    def test_shared_memory_of_cuda(self) -> None:
        on_gpu = EFFECTIVE["python"].replace("KIND_CPU", "KIND_GPU")
        assert beyond(composed(on_gpu)) == {}
        assert beyond(composed(on_gpu, shared_memory="cuda")) == {"FORCE_CPU_ONLY_INPUT_TENSORS": (OFF, "no")}


class TestFiles:
    def test_a_space_file_names_more_and_overrides(self) -> None:
        space = composed(
            "onnxruntime",
            "backend: onnxruntime\nparameters: {execution_mode: {}, intra_op_thread_count: {ladder: [1, 3]}}\n"
            "leave_out: [openvino, max_batch_size]\nlaws: [instance_group.count <= 3]",
        )
        assert beyond(space) == {"execution_mode": (OFF, 1), "intra_op_thread_count": (OFF, 1, 3)}
        assert "max_batch_size" not in {p.name for p in space.parameters}
        assert space.not_searched["max_batch_size"] == "the space file leaves it out"
        assert space.not_searched["openvino"] == "the space file leaves it out"
        assert space.normalize({"instance_group.count": 8})["instance_group.count"] == 3

    def test_the_own_count_counts_where_it_does_not_vary(self) -> None:
        space = composed("onnxruntime", "backend: onnxruntime\nleave_out: [instance_group.count]")
        assert space.normalize({"intra_op_thread_count": 4})["intra_op_thread_count"] == 2

    def test_an_inert_field_is_left_out_with_the_reason(self) -> None:
        text = "parameters: {pinned: {field: optimization.output_pinned_memory.enable, ladder: [true, false]}}"
        why = "it has no effect: only the TensorRT backend reads it"
        for key in ("onnxruntime gpu", "python"):
            assert composed(key, text).left_out["pinned"].startswith(why)
        assert "pinned" in beyond(composed("tensorrt", text))
        # What is not known is searched as asked.
        own = 'backend: "mine"\ninstance_group [ { kind: KIND_GPU count: 1 } ]\n'
        assert "pinned" in beyond(composed(own, text))
        aoti = "parameters: {a: {field: 'parameters[\"INFERENCE_MODE\"].string_value', ladder: [off, true]}}"
        assert "read no parameters" in composed("torch_aoti", aoti).left_out["a"]

    def test_a_parameter_without_its_condition(self) -> None:
        alone = composed("onnxruntime", "backend: onnxruntime\nparameters: {inter_op_thread_count: {}}")
        reason = "it has an effect only with execution_mode 1, and execution_mode does not vary"
        assert alone.left_out["inter_op_thread_count"].startswith(reason)
        both = "backend: onnxruntime\nparameters: {execution_mode: {}, inter_op_thread_count: {}}"
        assert "inter_op_thread_count" in beyond(composed("onnxruntime", both))
        parallel = 'parameters { key: "execution_mode" value { string_value: "1" } }\n'
        own = composed(
            EFFECTIVE["onnxruntime"] + parallel, "backend: onnxruntime\nparameters: {inter_op_thread_count: {}}"
        )
        assert "inter_op_thread_count" in own.normalize({"inter_op_thread_count": 2})

    def test_a_field_of_an_accelerator_that_does_not_vary(self) -> None:
        text = "backend: onnxruntime\nparameters: {tensorrt.trt_sparsity_enable: {}}\nleave_out: [tensorrt]"
        space = composed("onnxruntime gpu", text)
        assert space.left_out["tensorrt.trt_sparsity_enable"].startswith("tensorrt does not vary")

    def test_a_named_value_that_may_change_answers_is_said(self) -> None:
        text = "parameters: {p: {field: 'parameters[\"p\"].string_value', ladder: [off, a, b], changes_numerics: [b]}}"
        space = composed("python", text)
        assert beyond(space) == {"p": (OFF, "a")}
        assert space.notes == ("p: b left out: it may change what the model answers; allow it with --allow-numerics",)
        assert beyond(composed("python", text, allow_numerics=True)) == {"p": (OFF, "a", "b")}

    def test_the_space_of_another_backend(self) -> None:
        with pytest.raises(SpaceError, match="'fil' is not the model's backend, which is 'python'"):
            composed("python", "backend: fil")


class TestHostPolicies:
    def test_a_policy_for_each_node(self) -> None:
        space = composed("python", nodes=2)
        assert beyond(space) == {"instance_group.host_policy": (OFF, "node0", "node1")}
        candidate = space.candidate(space.normalize({"instance_group.host_policy": "node1"}))
        assert [group.host_policy for group in candidate.config.proto.instance_group] == ["node1"]
        assert candidate.patch.arguments(()) == ("--host-policy=node1,numa-node=1",)
        assert space.candidate(space.baseline).patch.arguments(()) == ()
        # All patches of a study have the same keys.
        assert candidate.others.server_args.keys() == space.originals.server_args.keys()

    def test_one_node_has_none(self) -> None:
        assert composed("python").not_searched["instance_group.host_policy"] == "the machine has 1 NUMA node"
        assert composed("python", nodes=0).not_searched["instance_group.host_policy"] == "the machine has 1 NUMA node"


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_any_candidate_of_any_backend_is_valid_and_has_one_form(data: st.DataObject) -> None:
    space = _auto(data.draw(st.sampled_from(sorted(EFFECTIVE))))
    drawn = {p.name: data.draw(st.integers(0, len(p.ladder) - 1)) for p in space.parameters}
    assignment = space.assignment(drawn)
    assert space.assignment(space.indices(assignment)) == assignment
    assert all(law.holds(assignment) for law in space.laws)
    candidate = space.candidate(assignment)
    for p in space.parameters:
        if p.field and p.name in assignment and not p.is_base(assignment[p.name]):
            read = value_at(p.field, candidate.config, may_be_on=ON in p.ladder, has_numbers=p.place.has_numbers)
            assert read == assignment[p.name]


@functools.cache
def _auto(key: str) -> SearchSpace:
    return composed(key, "auto", allow_numerics=True)
