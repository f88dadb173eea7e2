"""Which candidate next, what the study knows, and what is best."""
