"""The command line: `main.py` parses, and one module for each command does the work."""
