"""Finds the reason of a failure in Triton's log."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from tuner.core.errors import Cause

_LAST_LINES = 30
_MOST_BYTES = 1 << 20

_GAVE_UP = re.compile(
    # Triton unloads the loaded models, and waits a second before it exits.
    r"Waiting for in-flight requests to complete"
    # The process of a Python instance could not start. Triton would wait for it without end.
    r"|Failed to preinitialize Python stub: .*\n"
)
_PORT_TAKEN = re.compile(r"Socket '[^']*' already in use|Address already in use")

# The most informative patterns come first; the first match counts.
_REASONS = (
    re.compile(r"failed to load '[^']+' version \d+: (?P<text>.*)"),
    re.compile(r"Poll failed for model directory '[^']+': (?P<text>.*)"),
    re.compile(r"failed to poll model '[^']+': (?P<text>.*)"),
    re.compile(r"Failed to preinitialize Python stub: (?P<text>.*)"),
    re.compile(r"load failed for model '[^']+': (?P<text>.*)"),
    re.compile(r"error: creating server: (?P<text>.*)"),
    re.compile(r"error while loading shared libraries: (?P<text>.*)"),
    re.compile(r"(?P<text>terminate called after throwing .*)"),
    re.compile(r"(?P<text>unrecognized option .*)"),
    re.compile(r"(?P<text>option '[^']+' (?:requires|doesn't allow) an argument)"),
)
_VERSION = re.compile(r"\|\s*server_version\s*\|\s*(\S+)")
_USAGE = re.compile(r"^Usage: tritonserver", re.MULTILINE)
_SYNTAX = re.compile(r"Error parsing text-format inference\.ModelConfig: (?P<text>\d+:\d+: .*)")
_STATUS = re.compile(
    r"^(?:Internal|Invalid argument|Not found|Unavailable|Unsupported|Unknown|Already exists)(?: - |: )"
)

_NO_BACKEND = re.compile(r"unable to find backend library for backend '[^']*'")

_OUT_OF_MEMORY = re.compile(
    r"out of memory|outofmemory|out_of_memory|bad_alloc|memoryerror|cudaerrormemoryallocation"
    r"|cannot allocate memory|failed to allocate memory|no space left on device",
    re.IGNORECASE,
)
_CRASHED = re.compile(r"stub process '[^']*' is not healthy|terminate called after", re.IGNORECASE)


@dataclass(frozen=True)
class Reason:
    """Why a server did not become ready.

    Attributes:
        text: Triton's own reason, in one line.
        cause: The kind of failure.
    """

    text: str
    cause: Cause


def read_log(log: Path) -> str:
    """The log of a server, or the last MiB of it; empty if there is no such file."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _MOST_BYTES))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def gave_up(text: str) -> bool:
    """Whether a starting server has given up, though it still runs."""
    return _GAVE_UP.search(text) is not None


def port_taken(text: str) -> bool:
    """Whether the server found one of its ports in use."""
    return _PORT_TAKEN.search(text) is not None


def tells_of_memory(text: str) -> bool:
    """Whether the last lines report that memory ran out."""
    return _OUT_OF_MEMORY.search(last_words(text)) is not None


def find_reason(text: str) -> Reason | None:
    """Why the model was not loaded, by the log; None: the log has no reason."""
    for pattern in _REASONS:
        if match := pattern.search(text):
            words = _plain(match["text"])
            if "failed to read text proto" in words and (syntax := _SYNTAX.search(text)):
                words = f"config.pbtxt:{syntax['text'].strip()}"
            if missing := _NO_BACKEND.search(words):
                words = f"{missing[0]}; set the backend folder by --triton-arg=--backend-directory=DIR"
            return Reason(words, _cause(words))
    return None


def last_words(text: str) -> str:
    """The last 30 lines of a log, without tables and empty lines."""
    lines = [line.rstrip() for line in text.splitlines()]
    return "\n".join([line for line in lines if line and not line.startswith(("|", "+-"))][-_LAST_LINES:])


def find_version(text: str) -> str | None:
    """The version in a server's log, such as `2.51.0`."""
    match = _VERSION.search(text)
    return match[1] if match else None


def why_it_ended(text: str) -> str:
    """Why a server that was started without a model ended, in one line."""
    if reason := find_reason(text):
        return reason.text
    if _USAGE.search(text):
        return "it rejects its arguments"
    return (last_words(text).splitlines() or ["it wrote nothing"])[-1]


def _plain(text: str) -> str:
    """A message as one line without status, quotes and traceback."""
    text = text.strip()
    if text.endswith('"'):  # newer logs quote and escape each message
        try:
            text = json.loads(f'"{text}')
        except ValueError:
            text = text[:-1]
    while match := _STATUS.match(text):
        text = text[match.end() :]
    text = text.partition("\n\nAt:\n")[0].replace("<EMPTY MESSAGE>", "")
    return " ".join(text.split()).rstrip(":;")


def _cause(words: str) -> Cause:
    if _OUT_OF_MEMORY.search(words):
        return Cause.OUT_OF_MEMORY
    return Cause.CRASHED if _CRASHED.search(words) else Cause.INVALID_CONFIG
