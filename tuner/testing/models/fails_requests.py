"""Answers some requests with an error.

Parameters: `fail_every`: every n-th request of an instance (default 1: all); `message` (default `not this one`).
"""

import json

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.fail_every = int(parameters.get("fail_every", {"string_value": "1"})["string_value"])
        self.message = parameters.get("message", {"string_value": "not this one"})["string_value"]
        self.seen = 0

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        self.seen += 1
        if self.seen % self.fail_every == 0:
            return pb_utils.InferenceResponse([], pb_utils.TritonError(self.message))
        values = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", values)])
