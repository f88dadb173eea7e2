"""The Pareto front, the best operating point and its gain, and their verification; uses no database."""
