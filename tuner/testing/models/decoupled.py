"""Answers a request as often as it says, each time with what it got.

`IN` holds how many responses, how many ms pass before each, at which of them, from 0, an error comes instead (-1: none;
what follows it is sent all the same), and whether the last response says itself that it is the last (1) or something
empty does after it (0). The config sets `model_transaction_policy { decoupled: true }`.

Parameters: `diary` (none by default): a file to which each request adds a line when all is answered: "whole", or
"cancelled" if the client has cancelled it by then.
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
            # The request's memory is given back once this returns.
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
