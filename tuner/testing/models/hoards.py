"""Returns its input after 30 ms. After some executions it allocates memory without end.

Parameters: `hoard_when_instances`: allocates only if the config has at least this many instances (default 0);
`hoard_after`: number of executions before (default 5).
"""

import json
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        instances = sum(group["count"] for group in config["instance_group"])
        self.hoards = instances >= int(parameters.get("hoard_when_instances", "0"))
        self.left = int(parameters.get("hoard_after", "5"))
        self.hoard = []

    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        time.sleep(0.03)
        self.left -= 1
        while self.hoards and self.left < 0:
            self.hoard.append(b"x" * (64 << 20))
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", values)]) for values in inputs]
