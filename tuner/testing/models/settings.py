"""Waits before each answer, as long as its settings say; returns its input.

The time in ms is the sum of `delay_ms` in `model.json` beside the code, and of the environment variable
`SETTINGS_DELAY_MS`. Without the file or the variable, these count as 0.
"""

import json
import os
import time
from pathlib import Path

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        file = Path(args["model_repository"], args["model_version"], "model.json")
        delay_ms = json.loads(file.read_text())["delay_ms"] if file.exists() else 0
        self.delay_s = (delay_ms + float(os.environ.get("SETTINGS_DELAY_MS", "0"))) / 1e3

    def execute(self, requests):
        time.sleep(self.delay_s)
        inputs = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", values)]) for values in inputs]
