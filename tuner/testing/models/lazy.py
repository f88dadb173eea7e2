"""Returns its input; the first execution of each batch size takes longer, as if something were compiled for it.

Parameters: `first_ms` for such a first execution (default 1000), `sleep_ms` for each other one (default 2), and
`refuses_zeros`: if set, requests whose values are all 0 fail.
"""

import json
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.first_ms = float(parameters.get("first_ms", {"string_value": "1000"})["string_value"])
        self.other_ms = float(parameters.get("sleep_ms", {"string_value": "2"})["string_value"])
        self.refuses_zeros = "refuses_zeros" in parameters
        self.seen = set()

    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        size = sum(len(values) for values in inputs)
        time.sleep((self.other_ms if size in self.seen else self.first_ms) / 1e3)
        self.seen.add(size)
        return [self._answer(values) for values in inputs]

    def _answer(self, values):
        if self.refuses_zeros and not values.any():
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("not a document: all values are 0"))
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", values)])
