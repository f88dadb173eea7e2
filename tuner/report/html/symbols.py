"""Words that are also for plain terminals, as a page can write them."""

from __future__ import annotations

TIMES = "\N{MULTIPLICATION SIGN}"


def in_symbols(text: str) -> str:
    """With the signs of print: `p99 ≤ 25 ms`."""
    return text.replace("<=", "≤").replace(">=", "≥")


def short_name(parameter: str) -> str:
    """A parameter's name where there is little room, as candidates are told of: without the block that it is in."""
    return parameter.removeprefix("dynamic_batching.")
