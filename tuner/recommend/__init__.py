"""The Pareto front, the best operating point and its gain; verifies and certifies it. Knows no database."""
