"""Measures a server: one load level, the sweep over levels, one trial; quality checks and resource sampling."""
