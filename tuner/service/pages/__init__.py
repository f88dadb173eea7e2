"""The dashboard: pages rendered by the server, with a script for what changes while one looks."""
