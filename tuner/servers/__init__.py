"""Launchers of Triton servers, and clients of running servers."""
