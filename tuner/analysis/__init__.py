"""Explains a study: effects of parameters, their importance, and the hosts that a load needs."""
