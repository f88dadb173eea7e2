"""Nightly tuning: keeps the deployed config the best one, and reports when it got slower."""
