"""What a user asks for: the values of options, groups of them, and whole jobs."""
