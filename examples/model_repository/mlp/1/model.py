"""A multilayer perceptron, 256 -> 5 x 1024 -> 256, with random weights.

Its weights (19 MB) pass through the processor's caches once a batch, not once a request, so batches pay: it behaves
as larger models do on larger machines.
"""

from itertools import pairwise

import numpy as np
import triton_python_backend_utils as pb_utils

LAYERS = (256, 1024, 1024, 1024, 1024, 1024, 256)


class TritonPythonModel:
    """Triton's interface for Python models."""

    def initialize(self, args):
        """Make up the weights, the same in each instance."""
        random = np.random.default_rng(seed=0)
        self.weights = [
            (random.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32)
            for rows, columns in pairwise(LAYERS)
        ]

    def execute(self, requests):
        """Answer all requests of a batch by one pass."""
        features = [pb_utils.get_input_tensor_by_name(request, "FEATURES").as_numpy() for request in requests]
        values = np.concatenate(features)
        for weight in self.weights[:-1]:
            values = np.maximum(values @ weight, 0.0)
        scores = values @ self.weights[-1]
        ends = np.cumsum([len(each) for each in features])[:-1]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("SCORES", each)]) for each in np.split(scores, ends)]
