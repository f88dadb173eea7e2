"""Returns its input; `finalize` writes a line for each instance to the server's log."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.name = args["model_instance_name"]

    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", values)]) for values in inputs]

    def finalize(self):
        print(f"goodbye from {self.name}", flush=True)  # noqa: T201 (goes to the server's log)
