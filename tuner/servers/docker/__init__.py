"""Triton in Docker containers. `launcher.py` is the entry point."""
