"""Hangs in an execution, or at the start.

Parameters: `hang_when_batch_exceeds`: hangs at an execution of more items than this (default 0: at any execution);
`initialize`: at the start. `hang_when_instances`: hangs only if the config has at least this many instances.
`hang_after`: instead, the first instance hangs after this many executions, and the others do not hang. `sleep_ms`: time
of an execution that does not hang, in ms (default 0).
"""

import json
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        limit = parameters.get("hang_when_batch_exceeds", "0")
        self.hangs = sum(group["count"] for group in config["instance_group"]) >= int(
            parameters.get("hang_when_instances", "0")
        )
        if limit == "initialize" and self.hangs:
            self.hang()
        self.limit = 0 if limit == "initialize" else int(limit)
        self.sleep_s = float(parameters.get("sleep_ms", "0")) / 1e3
        self.executions_left = None
        if "hang_after" in parameters:
            is_first = args["model_instance_name"].endswith("_0")
            self.hangs, self.executions_left = is_first, int(parameters["hang_after"])

    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        if self.hangs and self.is_time(sum(len(values) for values in inputs)):
            self.hang()
        time.sleep(self.sleep_s)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", values)]) for values in inputs]

    def is_time(self, items):
        if self.executions_left is None:
            return items > self.limit
        self.executions_left -= 1
        return self.executions_left < 0

    def hang(self):
        while True:
            time.sleep(3600)

    def finalize(self):
        """Defined, so that launchers give the model time to finalise."""
