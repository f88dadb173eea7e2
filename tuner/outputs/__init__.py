"""Golden outputs: the baseline's answers to a few requests, and their differences from other answers."""
