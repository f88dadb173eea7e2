"""Where results go."""

from __future__ import annotations

import sys

from rich.console import Console

# What most windows, mails and issues show without breaking lines.
USUAL_WIDTH = 100


def results_console(width: int = 240) -> Console:
    """For what is found: stdout.

    Args:
        width: In columns, when nobody's terminal bounds it.
    """
    return Console() if sys.stdout.isatty() else Console(width=width)
