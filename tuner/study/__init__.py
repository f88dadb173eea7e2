"""Stored results of a run: the study database, the run folder, and warm starts from earlier runs."""
