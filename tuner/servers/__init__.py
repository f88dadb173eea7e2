"""Ways of getting a Triton that runs."""
