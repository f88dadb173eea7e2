"""Statistics of samples: rates and latencies with intervals, tests of limits."""
