"""Nightly tuning: replaces the deployed config when a better one is found, and reports when it got slower."""
