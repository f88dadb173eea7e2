"""Hands back what it gets, and says goodbye.

Parameters: `goodbye`: a file to which `finalize` adds a line for each instance.
"""

import json
from pathlib import Path

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.name = args["model_instance_name"]
        self.goodbye = Path(json.loads(args["model_config"])["parameters"]["goodbye"]["string_value"])

    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", values)]) for values in inputs]

    def finalize(self):
        with self.goodbye.open("a") as file:
            file.write(f"{self.name}\n")
