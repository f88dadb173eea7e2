"""Golden outputs: what the baseline answers, and how other answers differ from it."""
