"""Sends a number of responses to each request; each response repeats the input.

`IN` has four values: the number of responses; the delay before each, in ms; the index, from 0, of a response that is an
error (-1: none; later responses are still sent); and whether the last response is marked as final (1), or an empty
final response follows it (0). The config sets `model_transaction_policy { decoupled: true }`.

Parameters: `diary` (optional): a file to which each request appends a line after its last response: "whole", or
"cancelled" if the client had cancelled the request before.
"""

import json
import threading
import time
from pathlib import Path

import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    def initialize(self, args):
        self.threads = set()
        parameters = json.loads(args["model_config"])["parameters"]
        self.diary = Path(parameters["diary"]["string_value"]) if "diary" in parameters else None

    def execute(self, requests):
        for request in requests:
            # Copied, since the request's memory is freed when this method returns.
            values = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy().copy()
            thread = threading.Thread(target=self.answer, args=(request.get_response_sender(), values))
            self.threads = {other for other in self.threads if other.is_alive()} | {thread}
            thread.start()

    def answer(self, sender, values):
        count, delay_ms, error_at, together = map(int, values.ravel())
        cancelled = False
        for number in range(count):
            time.sleep(delay_ms / 1e3)
            response = pb_utils.InferenceResponse([pb_utils.Tensor("OUT", values)])
            cancelled = sender.is_cancelled()
            if number == error_at:
                response = pb_utils.InferenceResponse([], pb_utils.TritonError("the model says no"))
            sender.send(response, flags=FINAL if together and number == count - 1 else 0)
        if not (together and count):
            sender.send(flags=FINAL)
        if self.diary:
            with self.diary.open("a") as file:
                file.write("cancelled\n" if cancelled else "whole\n")

    def finalize(self):
        for thread in self.threads:
            thread.join()
