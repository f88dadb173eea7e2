"""Writes Triton 2.51's log lines, as the launchers read them."""

from __future__ import annotations

import json
import os
import sys
import time


def say(letter: str, place: str, text: str, *, quoted: bool = True) -> None:
    """Write one log line.

    Args:
        letter: `I`, `W` or `E`.
        place: File and line of Triton's source.
        text: The message.
        quoted: Whether to quote and escape the message, as newer Tritons do except for tables.
    """
    now = time.time()
    stamp = time.strftime("%m%d %H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06d}"
    message = json.dumps(text, ensure_ascii=False) if quoted else text
    raw(f"{letter}{stamp} {os.getpid()} {place}] {message}")


def raw(text: str) -> None:
    """Write a line unchanged."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def table(place: str, *rows: tuple[str, ...]) -> None:
    """Write a table, whose first row is the header."""
    cells = [[cell.split("\n") for cell in row] for row in rows]
    widths = [max(len(line) for row in cells for line in row[column]) for column in range(len(rows[0]))]
    rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    lines = ["", rule]
    for number, row in enumerate(cells):
        for line in range(max(map(len, row))):
            parts = [cell[line] if line < len(cell) else "" for cell in row]
            lines.append("|" + "|".join(f" {part:<{width}} " for part, width in zip(parts, widths, strict=True)) + "|")
        if number == 0 or number == len(cells) - 1:
            lines.append(rule)
    if len(rows) == 1:
        lines.append(rule)
    say("I", place, "\n".join(lines) + "\n", quoted=False)
