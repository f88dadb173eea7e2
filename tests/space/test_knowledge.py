from __future__ import annotations

import pytest
from support.effective import EFFECTIVE

from tuner.config.config import EMPTY, ModelConfig
from tuner.core.errors import SpaceError
from tuner.space import knowledge as module
from tuner.space.bounds import check_fields
from tuner.space.knowledge import COMMON, Backend, backend_of, knowledge, known_backends, named_parameters
from tuner.space.place import Place, edited, value_at
from tuner.space.spec import OFF, ON, LadderValue, parse_space

CPU = 'optimization.execution_accelerators.cpu_execution_accelerator["{}"]'
GPU = 'optimization.execution_accelerators.gpu_execution_accelerator["{}"]'
P = 'parameters["{}"].string_value'

# Every field of the backends' documentation and sources that the protobuf schema knows, with two of its values.
TABLE: tuple[tuple[str, tuple[LadderValue, ...]], ...] = (
    ("max_batch_size", (1, 64)),
    ("dynamic_batching", (ON,)),
    ("dynamic_batching.preferred_batch_size", (4, (2, 4))),
    ("dynamic_batching.max_queue_delay_microseconds", (100, 5000)),
    ("dynamic_batching.preserve_ordering", (True, False)),
    ("dynamic_batching.priority_levels", (2, 3)),
    ("dynamic_batching.default_priority_level", (1, 2)),
    ("dynamic_batching.default_queue_policy.timeout_action", ("REJECT", "DELAY")),
    ("dynamic_batching.default_queue_policy.default_timeout_microseconds", (1000, 2000)),
    ("dynamic_batching.default_queue_policy.allow_timeout_override", (True, False)),
    ("dynamic_batching.default_queue_policy.max_queue_size", (16, 64)),
    ("instance_group[*].count", (1, 4)),
    ("instance_group[*].kind", ("KIND_GPU", "KIND_CPU")),
    ("instance_group[*].gpus", (0, (0, 1))),
    ("instance_group[*].passive", (True, False)),
    ("instance_group[*].host_policy", ("node0", "mine")),
    ("instance_group[*].profile", ("0", ("0", "1"))),
    ("instance_group[*].rate_limiter.priority", (1, 2)),
    ('instance_group[*].rate_limiter.resources["R"].count', (1, 2)),
    ('instance_group[*].rate_limiter.resources["R"].global', (True, False)),
    ("response_cache.enable", (True, False)),
    ("model_warmup[0].batch_size", (1, 8)),
    ("model_warmup[0].count", (1, 8)),
    ('model_warmup[0].inputs["X"].random_data', (True, False)),
    ("optimization.input_pinned_memory.enable", (True, False)),
    ("optimization.output_pinned_memory.enable", (True, False)),
    ("input[0].allow_ragged_batch", (True, False)),
    ("batch_input[0].kind", ("BATCH_ELEMENT_COUNT", "BATCH_ACCUMULATED_ELEMENT_COUNT")),
    ("sequence_batching.direct.max_queue_delay_microseconds", (100, 200)),
    ("sequence_batching.direct.minimum_slot_utilization", (0.5, 1.0)),
    ("sequence_batching.oldest.max_candidate_sequences", (1, 8)),
    ("sequence_batching.oldest.preferred_batch_size", (2, (2, 4))),
    ("sequence_batching.oldest.max_queue_delay_microseconds", (100, 200)),
    ("sequence_batching.oldest.preserve_ordering", (True, False)),
    ("sequence_batching.state[0].use_same_buffer_for_input_output", (True, False)),
    ("sequence_batching.state[0].use_growable_memory", (True, False)),
    ("ensemble_scheduling.max_inflight_requests", (1, 8)),
    ("optimization.graph.level", (-1, 1)),
    ("optimization.priority", ("PRIORITY_MAX", "PRIORITY_MIN")),
    ("optimization.cuda.graphs", (True, False)),
    ("optimization.cuda.graph_spec[0].batch_size", (1, 8)),
    ('optimization.cuda.graph_spec[0].input["X"].dim', (4, (4, 8))),
    ("optimization.cuda.graph_spec[0].graph_lower_bound.batch_size", (1, 2)),
    ('optimization.cuda.graph_spec[0].graph_lower_bound.input["X"].dim', (4, (4, 8))),
    ("optimization.cuda.busy_wait_events", (True, False)),
    ("optimization.cuda.output_copy_stream", (True, False)),
    ("optimization.eager_batching", (True, False)),
    ("optimization.gather_kernel_buffer_threshold", (2, 8)),
    (CPU.format("openvino"), (ON,)),
    (GPU.format("tensorrt"), (ON,)),
    (GPU.format("cuda"), (ON,)),
    (GPU.format("auto_mixed_precision"), (ON,)),
    (GPU.format("gpu_io"), (ON,)),
    *(
        (GPU.format("tensorrt") + f'.parameters["{name}"]', ("text", 2, True))
        for name in [
            "precision_mode",
            "max_workspace_size_bytes",
            "trt_engine_cache_enable",
            "trt_engine_cache_path",
            "trt_engine_cache_prefix",
            "trt_timing_cache_enable",
            "trt_timing_cache_path",
            "trt_force_timing_cache",
            "trt_builder_optimization_level",
            "trt_cuda_graph_enable",
            "trt_auxiliary_streams",
            "trt_min_subgraph_size",
            "trt_max_partition_iterations",
            "trt_context_memory_sharing_enable",
            "trt_sparsity_enable",
            "trt_tactic_sources",
            "trt_layer_norm_fp32_fallback",
            "trt_profile_min_shapes",
            "trt_profile_opt_shapes",
            "trt_profile_max_shapes",
            "trt_build_heuristics_enable",
            "trt_dla_enable",
            "int8_calibration_table_name",
            "minimum_segment_size",
            "max_cached_engines",
        ]
    ),
    *(
        (GPU.format("cuda") + f'.parameters["{name}"]', (0, 1))
        for name in [
            "cudnn_conv_use_max_workspace",
            "use_ep_level_unified_stream",
            "enable_cuda_graph",
            "cudnn_conv1d_pad_to_nc1d",
            "prefer_nhwc",
            "use_tf32",
            "enable_skip_layer_norm_strict_mode",
            "tunable_op_enable",
            "tunable_op_tuning_enable",
            "fuse_conv_bias",
            "sdpa_kernel",
        ]
    ),
    *(
        (P.format(name), ("text", 4, True))
        for name in [
            "intra_op_thread_count",
            "inter_op_thread_count",
            "execution_mode",
            "enable_mem_arena",
            "enable_mem_pattern",
            "memory.enable_memory_arena_shrinkage",
            "session.use_device_allocator_for_initializers",
            "cudnn_conv_algo_search",
            "gpu_mem_limit",
            "arena_extend_strategy",
            "do_copy_in_default_stream",
            "execution_context_allocation_strategy",
            "enable_multi_device",
            "multi_device_gpus",
            "DISABLE_OPTIMIZED_EXECUTION",
            "INFERENCE_MODE",
            "DISABLE_CUDNN",
            "ENABLE_WEIGHT_SHARING",
            "ENABLE_CACHE_CLEANING",
            "ENABLE_TENSOR_FUSER",
            "ENABLE_JIT_EXECUTOR",
            "ENABLE_JIT_PROFILING",
            "INTRA_OP_THREAD_COUNT",
            "INTER_OP_THREAD_COUNT",
            "NUM_THREADS",
            "NUM_INTEROP_THREADS",
            "TORCH_COMPILE_OPTIONAL_PARAMETERS",
            "PERFORMANCE_HINT",
            "NUM_STREAMS",
            "INFERENCE_NUM_THREADS",
            "COMPILATION_NUM_THREADS",
            "HINT_BF16",
            "SKIP_OV_DYNAMIC_BATCHSIZE",
            "ENABLE_BATCH_PADDING",
            "RESHAPE_IO_LAYERS",
            "TARGET_DEVICE",
            "CPU_EXTENSION_PATH",
            "FORCE_CPU_ONLY_INPUT_TENSORS",
            "EXECUTION_ENV_PATH",
            "chunk_size",
            "layout",
            "transfer_threshold",
            "cpu_nthread",
            "use_experimental_optimizations",
            "num_threads",
            "split_along_outer_axis",
            "TF_NUM_INTRA_THREADS",
            "TF_NUM_INTER_THREADS",
            "TF_USE_PER_SESSION_THREADS",
            "MAX_SESSION_SHARE_COUNT",
        ]
    ),
)

OWN = """\
# A model of ours.
name: "m"   # its name
backend: "onnxruntime"
parameters { key: "mine", value: { string_value: "kept" } }  # not theirs
input [ { name: "X" data_type: TYPE_FP32 dims: [ 4 ] } ]
instance_group [ { name: "g" } ]
"""


@pytest.mark.parametrize(("field", "values"), TABLE, ids=[field for field, _ in TABLE])
def test_every_documented_field_can_be_named_and_edited(field: str, values: tuple[LadderValue, ...]) -> None:
    spec = parse_space(f"schema: 1\nparameters: {{p: {{field: {field!r}, ladder: {list(map(_listed, values))}}}}}", "s")
    own = ModelConfig.parse(OWN, "config.pbtxt")
    check_fields(spec, (own,), "s.yaml")
    config = own
    for value in values:
        config = edited(config, {field: value})
        has_numbers = Place.of("p", spec.parameters["p"]).has_numbers
        assert value_at(field, config, may_be_on=value == ON, has_numbers=has_numbers) == value
        assert all(
            line in config.text for line in OWN.splitlines() if "instance_group" not in line and "input" not in line
        )
        assert edited(config, {field: value}).text == config.text
    without = edited(config, {field: OFF})
    assert not [each for each in without.values(field) if each is not EMPTY or values == (ON,)]
    assert without.text.startswith("# A model of ours.\n")


def _listed(value: LadderValue) -> object:
    return list(value) if isinstance(value, tuple) else _Yaml(value) if isinstance(value, bool) else value


class _Yaml:
    def __init__(self, value: bool) -> None:  # noqa: FBT001
        self._value = value

    def __repr__(self) -> str:
        return str(self._value).lower()


class TestFiles:
    @pytest.mark.parametrize("name", [*known_backends(), COMMON])
    def test_each_reads_and_takes_its_own_values(self, name: str) -> None:
        file = knowledge(name)
        assert file.backend == name
        assert file.source
        own = ModelConfig.parse(OWN, "config.pbtxt")
        for parameter_name, parameter in file.parameters.items():
            place = Place.of(parameter_name, parameter)
            if not place.own_field:
                continue
            for value in parameter.values:
                config = edited(own, {place.own_field: value})
                read = value_at(
                    place.own_field, config, may_be_on=ON in parameter.values, has_numbers=place.has_numbers
                )
                assert read == value, parameter_name

    def test_there_are_those_of_the_documentation(self) -> None:
        assert known_backends() == (
            "dali",
            "fil",
            "onnxruntime",
            "openvino",
            "python",
            "pytorch",
            "tensorflow",
            "tensorrt",
        )

    @pytest.mark.parametrize("name", [*known_backends(), COMMON])
    def test_each_says_what_it_does_in_one_line(self, name: str) -> None:
        for parameter in knowledge(name).parameters.values():
            assert parameter.does.endswith(".")
            assert len(parameter.does) < 120
        for inert in knowledge(name).inert:
            assert not inert.reason.endswith(".")

    @pytest.mark.parametrize("key", sorted(EFFECTIVE))
    def test_a_model_is_known_by_its_backend_or_platform(self, key: str) -> None:
        expected = "pytorch" if key == "torch_aoti" else key.partition(" ")[0]
        assert backend_of(ModelConfig.parse(EFFECTIVE[key], key)) == expected

    def test_an_own_backend_is_not_known(self) -> None:
        assert not backend_of(ModelConfig.parse('backend: "mine"', "c"))

    @pytest.mark.parametrize(
        ("content", "complaint"),
        [
            ({"parameters": {"x": {"does": "It.", "ladder": [1], "laders": 2}}}, "laders"),
            ({"parameters": {"x": {"does": "It.", "search": "default"}}}, "ladder is missing"),
            ({"parameters": {"x": {"ladder": [1]}}}, "does"),
            ({"laws": ["x <= 2"]}, "no parameter 'x'"),
            ({"inert": [{"field": "a"}]}, "reason"),
        ],
    )
    def test_a_wrong_file_is_refused(self, content: dict[str, object], complaint: str) -> None:
        with pytest.raises(ValueError, match=complaint):
            Backend.model_validate({"schema": 1, "backend": "b", "source": "s", **content})

    def test_a_wrong_file_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "load_yaml", lambda _: {"schema": 1})
        knowledge.cache_clear()
        try:
            with pytest.raises(SpaceError, match="backends/fil.yaml: backend: "):
                knowledge("fil")
        finally:
            knowledge.cache_clear()


class TestIncluding:
    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("backend: onnx", "s.yaml: backend: nothing is known of 'onnx'; did you mean 'onnxruntime'"),
            (
                "backend: onnxruntime\nparameters: {execution_mod: {}}",
                "execution_mod: .* did you mean 'execution_mode'",
            ),
            ("backend: onnxruntime\nparameters: {execution_mode: {lader: [1]}}", "unknown key 'lader'"),
            ("backend: fil\nparameters: {execution_mode: {}}", "the backend fil has no parameter of this name"),
            ("backend: python\nparameters: {EXECUTION_ENV_PATH: {}}", "ladder is missing; this parameter has no usual"),
            ("backend: auto\nparameters: {unheard_of: {}}", "no backend has a parameter of this name"),
            ("backend: fil\nleave_out: [layouts]", "leave_out: .* no parameter 'layouts'; did you mean 'layout'"),
            ("backend: fil\nlaws: [cpu_nthreads <= 2]", "no parameter 'cpu_nthreads'; did you mean 'cpu_nthread'"),
            ("backend: fil\nparameters: {layout: {when: {chunk: [1]}}}", "when: this space has no parameter 'chunk'"),
            ("leave_out: [layout]\nparameters: {a: {ladder: [1]}}", "leave_out: needs `backend:`"),
            ("parameters: {execution_mode: {}}", "execution_mode: ladder is missing"),
            ("backend: onnxruntime\nparameters: {intra_op_thread_count: {ladder: [[1, 2]]}}", "must be one value"),
        ],
    )
    def test_what_is_wrong_is_named_before_a_launch(self, text: str, complaint: str) -> None:
        with pytest.raises(SpaceError, match=complaint) as caught:
            check_fields(parse_space(f"schema: 1\n{text}", "s.yaml"), (), "s.yaml")
        assert "\n" not in str(caught.value)

    def test_a_named_parameter_has_what_the_backend_knows(self) -> None:
        spec = parse_space(
            "schema: 1\nbackend: onnxruntime\nparameters: {execution_mode: {}, mine: {ladder: [1]}}", "s"
        )
        named = named_parameters(spec, "s")
        assert named["execution_mode"].field == 'parameters["execution_mode"].string_value'
        assert named["execution_mode"].values == (OFF, 1)
        assert named["mine"].values == (1,)
