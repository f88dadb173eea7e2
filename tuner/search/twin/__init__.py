"""The simulator (twin) of Triton's scheduler, fitted to the trials measured so far; it predicts other candidates."""
