"""Raises in `initialize`.

Parameters: `message` of the ValueError (default `no weights here`); `out_of_memory_when_instances`: raises a
MemoryError instead, and only if the config has at least this many instances.
"""

import json

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        if "out_of_memory_when_instances" not in parameters:
            raise ValueError(parameters.get("message", "no weights here"))
        if sum(group["count"] for group in config["instance_group"]) >= int(parameters["out_of_memory_when_instances"]):
            raise MemoryError("no room for another instance")

    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", values)]) for values in inputs]
