"""The documentation as text: its pages, their code blocks, and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tuner.cli.main import cli

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced code block.

    Attributes:
        place: Page and line.
        language: As the fence says.
        title: As the fence says; empty: none.
        text: Its lines.
    """

    place: str
    language: str
    title: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command of tritontune that a page shows.

    Attributes:
        place: Page and line.
        words: Name of the command, and its arguments.
    """

    place: str
    words: tuple[str, ...]


@cache
def pages() -> tuple[Path, ...]:
    """All pages."""
    return (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))


@cache
def blocks() -> tuple[Block, ...]:
    """All fenced code blocks of all pages."""
    return tuple(_blocks())


def _blocks() -> Iterator[Block]:
    for page in pages():
        text = page.read_text("utf-8")
        for found in _FENCE.finditer(text):
            yield Block(_place(page, text, found.start()), found[1], found[2] or "", found[3])


@cache
def shown_commands() -> tuple[Command, ...]:
    """The commands of all shell blocks."""
    lines = ((block, line) for block in blocks() if block.language == "bash" for line in _lines(block.text))
    found = ((block, _command(line)) for block, line in lines)
    return tuple(Command(block.place, words) for block, words in found if words)


@cache
def sessions() -> tuple[tuple[Command, str], ...]:
    """The commands of all console blocks, each with what it is to print."""
    return tuple(
        (Command(block.place, _command(line.strip())), printed)
        for block in blocks()
        if block.language == "console"
        for line, _, printed in (part.partition("\n") for part in block.text.split("$ ")[1:])
    )


@cache
def named_commands() -> tuple[Command, ...]:
    """The commands that sentences name, such as `tritontune report RUN_DIR`."""
    found = ((place, _command(code)) for place, code in inline_code())
    return tuple(Command(place, words) for place, words in found if words)


def inline_code() -> Iterator[tuple[str, str]]:
    """What stands between backticks outside of code blocks, each with its place."""
    for page in pages():
        text = _FENCE.sub(lambda found: "\n" * found[0].count("\n"), page.read_text("utf-8"))
        for found in _INLINE.finditer(text):
            yield _place(page, text, found.start()), found[1].replace(r"\|", "|")


def first_column(page: str, heading: str) -> list[str]:
    """What the first columns of the tables below a heading have between backticks, up to the next heading."""
    text = (ROOT / page).read_text("utf-8")
    part = re.split(r"^#+ ", text.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    cells = [line.split("|")[1] for line in part.splitlines() if line.startswith("|")]
    return [name for cell in cells for name in _INLINE.findall(cell)]


def _place(page: Path, text: str, position: int) -> str:
    return f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, position) + 1}"


def _lines(text: str) -> list[str]:
    return text.replace("\\\n", " ").splitlines()


def _command(line: str) -> tuple[str, ...]:
    """The words behind `tritontune`, up to a pipe; none where the line does not run it."""
    words = shlex.split(line, comments=True) if "tritontune" in line else []
    words = words[: words.index("|")] if "|" in words else words
    if words and words[0] == "tritontune":
        return tuple(words[1:])
    # As in `docker run IMAGE COMMAND`.
    runs = (at for at, word in enumerate(words[:-1]) if word == "tritontune" and words[at + 1] in cli.commands)
    at = next(runs, None)
    return () if at is None else tuple(words[at + 1 :])
