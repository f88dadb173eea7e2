"""Answers a request in several steps; the sequence batcher schedules each step separately.

The first value of `IN` is the number of steps. Each step sends `OUT`: the number of remaining steps, and three zeros.
The config has `model_transaction_policy { decoupled: true }` and `sequence_batching { iterative_sequence: true }`, with
the control inputs START (fp32) and CORRID.
"""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.left = {}

    def execute(self, requests):
        for request in requests:
            number = int(self.values(request, "CORRID")[0])
            if self.values(request, "START")[0]:
                self.left[number] = int(self.values(request, "IN")[0])
            self.left[number] -= 1
            out = np.array([[self.left[number], 0, 0, 0]], np.float32)
            answer = pb_utils.InferenceResponse([pb_utils.Tensor("OUT", out)])
            if self.left[number]:
                request.get_response_sender().send(answer)
                request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
            else:
                request.get_response_sender().send(answer, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
                del self.left[number]

    def values(self, request, name):
        return pb_utils.get_input_tensor_by_name(request, name).as_numpy().ravel()
