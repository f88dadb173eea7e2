"""A graph with two branches, run by ONNX Runtime; its threads, execution mode and optimizations are parameters.

It needs `onnx` and `onnxruntime` beside Triton. The graph is made here, so there is no model file.
"""

import json

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils
from onnx import TensorProto, helper, numpy_helper

WIDTH, LAYERS = 512, 8
LEVELS = {
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "none": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


class TritonPythonModel:
    """Triton's interface for Python models."""

    def initialize(self, args):
        """Start a session as the config's parameters say."""
        stated = json.loads(args["model_config"]).get("parameters", {})
        parameters = {name: value["string_value"] for name, value in stated.items()}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(parameters.get("intra_op_thread_count", 0))
        if parameters.get("execution_mode") == "parallel":
            options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
            options.inter_op_num_threads = 2
        if (level := parameters.get("graph_level")) is not None:
            options.graph_optimization_level = LEVELS[level]
        options.add_session_config_entry("session.intra_op.allow_spinning", parameters.get("spinning", "1"))
        self.session = onnxruntime.InferenceSession(graph(), options, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        """Answer all requests of a batch by one run."""
        features = [pb_utils.get_input_tensor_by_name(request, "FEATURES").as_numpy() for request in requests]
        (scores,) = self.session.run(None, {"FEATURES": np.concatenate(features)})
        ends = np.cumsum([len(each) for each in features])[:-1]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("SCORES", each)]) for each in np.split(scores, ends)]


def graph():
    """Two branches of layers with what optimizations fuse or remove, added at the end; as serialized bytes."""
    random = np.random.default_rng(seed=0)
    nodes, weights, ends = [], [], []
    for branch in "ab":
        value = "FEATURES"
        for layer in range(LAYERS):
            name = f"{branch}{layer}"
            weights.append(
                numpy_helper.from_array(random.standard_normal((WIDTH, WIDTH)).astype(np.float32) / 16, f"w{name}")
            )
            weights.append(numpy_helper.from_array(random.standard_normal(WIDTH).astype(np.float32), f"b{name}"))
            nodes += [
                helper.make_node("MatMul", [value, f"w{name}"], [f"m{name}"]),
                helper.make_node("Add", [f"m{name}", f"b{name}"], [f"s{name}"]),
                helper.make_node("Identity", [f"s{name}"], [f"i{name}"]),
                helper.make_node("Tanh", [f"i{name}"], [f"t{name}"]),
            ]
            value = f"t{name}"
        ends.append(value)
    nodes.append(helper.make_node("Add", ends, ["SCORES"]))
    shape = ["batch", WIDTH]
    made = helper.make_graph(
        nodes,
        "branches",
        [helper.make_tensor_value_info("FEATURES", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("SCORES", TensorProto.FLOAT, shape)],
        weights,
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
