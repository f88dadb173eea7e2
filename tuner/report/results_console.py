"""Where results go."""

from __future__ import annotations

import sys

from rich.console import Console


def results_console() -> Console:
    """For what is found: stdout. Tables have the room they need when nobody's terminal bounds it."""
    return Console() if sys.stdout.isatty() else Console(width=240)
