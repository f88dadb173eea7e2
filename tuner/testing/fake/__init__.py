"""A fake Triton: the server's process, without real backends. `tuner.testing` describes its use.

The process imports only this folder and `tuner.core.lean`, without numpy, gRPC and numba, so that it starts in 0.1 s.
"""
