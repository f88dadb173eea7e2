"""Compiles the simulation of Triton's scheduler, so that processes that start at once find it on disk."""

from __future__ import annotations

import numpy as np

from tuner.search.twin.batcher import Scenario, serve

if __name__ == "__main__":
    serve(Scenario(np.ones((2, 1)), np.ones(2, bool), concurrency=1, away_ms=0.1, warm_up=1), np.empty(1), 1)
