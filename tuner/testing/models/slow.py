"""Returns its input after a set time.

Parameters: `sleep_ms` for each execution (default 10), and `sleep_ms_per_item` for each item of its batch (default 0).
"""

import json
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.base_ms = float(parameters.get("sleep_ms", {"string_value": "10"})["string_value"])
        self.item_ms = float(parameters.get("sleep_ms_per_item", {"string_value": "0"})["string_value"])

    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        time.sleep((self.base_ms + self.item_ms * sum(len(values) for values in inputs)) / 1e3)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", values)]) for values in inputs]
