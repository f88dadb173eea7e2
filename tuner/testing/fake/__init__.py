"""A fake Triton: the server's process, without its backends. See `tuner.testing` for how it is used.

The process imports this folder and `tuner.core.lean`, and neither numpy, gRPC nor numba, so that it starts in 0.1 s.
"""
