"""Returns values that depend on the other items of the batch; a request that is executed alone gets its input.

`OUT` is `IN` minus the mean of the other items of the execution. If the config has an output `COUNT`, FP32 of shape
[1], it is the number of executions so far.
"""

import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.counts = len(json.loads(args["model_config"])["output"]) > 1
        self.executions = 0

    def execute(self, requests):
        self.executions += 1
        inputs = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        everything = np.concatenate(inputs)
        return [self.answer(values, everything) for values in inputs]

    def answer(self, values, everything):
        others = max(1, len(everything) - len(values))
        out = values - (everything.sum(axis=0) - values.sum(axis=0)) / others
        outputs = [pb_utils.Tensor("OUT", out.astype(np.float32))]
        if self.counts:
            count = np.full((len(values), 1), self.executions, np.float32)
            outputs.append(pb_utils.Tensor("COUNT", count))
        return pb_utils.InferenceResponse(outputs)
