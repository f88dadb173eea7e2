"""Symbols for texts that plain terminals write in ASCII."""

from __future__ import annotations

TIMES = "\N{MULTIPLICATION SIGN}"


def in_symbols(text: str) -> str:
    """Replace ASCII operators by symbols: `p99 ≤ 25 ms`."""
    return text.replace("<=", "≤").replace(">=", "≥")


def short_name(parameter: str) -> str:
    """A parameter's name without its block, for narrow columns and axes."""
    return parameter.removeprefix("dynamic_batching.")
