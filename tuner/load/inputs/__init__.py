"""The inputs of requests: generated tensors, or tensors from the user's files."""
