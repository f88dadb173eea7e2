"""Returns its input, and gets slower with each execution.

Parameters: `from_ms`: time of the second execution, in ms; `to_ms`: time from `over` executions later on. In between,
the time grows linearly. The first execution takes `to_ms`.
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
