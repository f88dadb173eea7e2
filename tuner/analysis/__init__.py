"""Analyses of a study: effects and importance of parameters, and the hosts that a load needs."""
