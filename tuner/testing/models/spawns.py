"""Returns its input. It starts a process in another session, which outlives the server unless the launcher ends it."""

import subprocess

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.stray = subprocess.Popen(["sleep", "600"], start_new_session=True)

    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", values)]) for values in inputs]
