"""Finds the config.pbtxt with which Triton serves a model best."""
