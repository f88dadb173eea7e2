"""Measures a server: load levels, sweeps and trials, with quality checks and resource sampling."""
