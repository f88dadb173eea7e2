"""Runs a tuning job from request to result."""
