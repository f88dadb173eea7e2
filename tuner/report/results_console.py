"""The console for results."""

from __future__ import annotations

import sys

from rich.console import Console

# Columns that most windows and mails show without line breaks.
USUAL_WIDTH = 100


def results_console(width: int = 240) -> Console:
    """A console on stdout.

    Args:
        width: Width in columns, used when stdout is no terminal.
    """
    return Console() if sys.stdout.isatty() else Console(width=width)
