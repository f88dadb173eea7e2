"""Search spaces: the parameters of a config that vary, their bounds, and candidates."""
