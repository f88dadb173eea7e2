"""Returns the number of the executing instance."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.number = int(args["model_instance_name"].rsplit("_", 1)[1])

    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.full_like(values, self.number))]) for values in inputs
        ]
