"""Runs a tuning job, from the request to the result files."""
