"""Hands back what it gets, and is ever slower at it.

Parameters: `from_ms` and `to_ms`: how long an execution takes at the second of them and after `over` more; in between,
each takes longer than the one before by the same. The very first one takes as long as the last.
"""

import json
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.from_ms, self.to_ms, self.over = (
            float(parameters[name]["string_value"]) for name in ("from_ms", "to_ms", "over")
        )
        self.executions = 0

    def execute(self, requests):
        self.executions += 1
        share = 1 if self.executions == 1 else min(1, (self.executions - 2) / self.over)
        time.sleep((self.from_ms + (self.to_ms - self.from_ms) * share) / 1e3)
        inputs = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", values)]) for values in inputs]
