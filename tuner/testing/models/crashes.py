"""Crashes its process.

Parameters: `crash_when_batch_exceeds`: crashes at the first execution of more items than this (default 0: at the first
execution); `initialize`: at the start. `crash_with`: `abort` (default) or an exit code.
"""

import json
import os

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        limit = parameters.get("crash_when_batch_exceeds", {"string_value": "0"})["string_value"]
        self.crash_with = parameters.get("crash_with", {"string_value": "abort"})["string_value"]
        if limit == "initialize":
            self.crash()
        self.limit = int(limit)

    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        if sum(len(values) for values in inputs) > self.limit:
            self.crash()
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", values)]) for values in inputs]

    def crash(self):
        if self.crash_with == "abort":
            os.abort()
        os._exit(int(self.crash_with))
