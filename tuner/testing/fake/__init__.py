"""A fake Triton: the server's process, without its backends. See `tuner.testing` for how it is used.

The process imports this folder and nothing else of `tuner`, nor numpy, grpc or numba, so that it starts in 0.1 s.
"""
