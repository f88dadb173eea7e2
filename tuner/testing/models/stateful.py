"""Adds up the inputs of a sequence's requests, and answers requests out of order with an error.

`IN` has the request's place in its stream, from 0, and the stream's length; a longer sequence begins the stream again.
`OUT` has the sum of all places so far, the number of requests so far, and the number of live sequences. The config has
the control inputs START, END, READY and CORRID, with or without `model_transaction_policy { decoupled: true }`.

Parameters: `diary`: a file to which each sequence appends a line at its end: its id, the number of its requests, and
the number of live sequences, including itself.
"""

import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.diary = Path(config["parameters"]["diary"]["string_value"])
        self.decoupled = config.get("model_transaction_policy", {}).get("decoupled", False)
        self.alive = {}

    def execute(self, requests):
        answers = [self.answer(request) for request in requests]
        if not self.decoupled:
            return answers
        for request, answer in zip(requests, answers, strict=True):
            request.get_response_sender().send(answer, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        return None

    def answer(self, request):
        if not self.values(request, "READY")[0]:
            # Triton fills the batch slot of a sequence without a request; the contents have no meaning.
            return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.zeros((1, 4), np.float32))])
        place, length = map(int, self.values(request, "IN")[:2])
        start, end, number = (int(self.values(request, name)[0]) for name in ("START", "END", "CORRID"))
        places = [] if start else self.alive.get(number)
        if start and number in self.alive:
            return self.refuse(f"sequence {number} starts again")
        if places is None:
            return self.refuse(f"sequence {number} has not started")
        if place != len(places) % length:
            return self.refuse(f"sequence {number} sends {place} after {places}")
        self.alive[number] = [*places, place]
        out = np.array([[sum(places) + place, len(places) + 1, len(self.alive), 0]], np.float32)
        if end:
            with self.diary.open("a") as file:
                file.write(f"{number} {len(places) + 1} {len(self.alive)}\n")
            del self.alive[number]
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", out)])

    def values(self, request, name):
        return pb_utils.get_input_tensor_by_name(request, name).as_numpy().ravel()

    def refuse(self, why):
        return pb_utils.InferenceResponse([], pb_utils.TritonError(why))
