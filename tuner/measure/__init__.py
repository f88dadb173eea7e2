"""Makes numbers with intervals of samples, and curves of loads."""
