"""Types of the user's options: single values, groups of options, and whole jobs."""
