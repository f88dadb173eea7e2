"""Calls another model (BLS), whose name it imports from `../common` beside the repository.

Without that folder it fails to load, like other models that share code in this way.
"""

import sys
from pathlib import Path

import triton_python_backend_utils as pb_utils

sys.path.append(str(Path(__file__).absolute().parent / ".." / ".." / ".." / "common"))
import callee


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(pb_utils.get_input_tensor_by_name(request, "IN")) for request in requests]

    def answer(self, value):
        request = pb_utils.InferenceRequest(model_name=callee.NAME, requested_output_names=["OUT"], inputs=[value])
        inner = request.exec()
        if inner.has_error():
            return pb_utils.InferenceResponse([], pb_utils.TritonError(inner.error().message()))
        return pb_utils.InferenceResponse([pb_utils.get_output_tensor_by_name(inner, "OUT")])
