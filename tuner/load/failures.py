"""Errors of requests, in one line, and their causes."""

from __future__ import annotations

import re

from tuner.core.errors import Cause, ServerError, ServerHungError

CODES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""The names of gRPC's status codes, by number."""

_LONGEST = 300

# Messages of gRPC, Triton 2.51 and our own drivers; the first match counts.
_CAUSES = (
    (re.compile("^DEADLINE_EXCEEDED"), Cause.HUNG),
    (re.compile("out of memory|failed to allocate|bad_alloc", re.IGNORECASE), Cause.OUT_OF_MEMORY),
    (re.compile("stub process", re.IGNORECASE), Cause.CRASHED),
    (
        re.compile("^UNAVAILABLE.*(connect|socket closed|connection reset|broken pipe|goaway|endpoint)", re.IGNORECASE),
        Cause.CRASHED,
    ),
)

# Advice for messages of Triton that an option of ours fixes.
_ADVICE = (
    (
        re.compile("shared memory size specified with the request for output .* should be at least"),
        "increase --output-shared-memory-size",
    ),
)


def describe(code: str, details: str | None) -> str:
    """`CODE: message` in one line of at most 300 characters, and the option that helps, if any."""
    line = " ".join(f"{code}: {details or 'no details'}".split())
    advice = [f"; {text}" for pattern, text in _ADVICE if pattern.search(line)]
    return "".join([line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "...", *advice])


def cause_of(description: str) -> Cause:
    """The cause of a failure, from a line of `describe`."""
    return next((cause for pattern, cause in _CAUSES if pattern.search(description)), Cause.REQUESTS_FAILED)


def failed(what: str, description: str) -> ServerError:
    """The error `what: description`, with its cause."""
    cause = cause_of(description)
    message = f"{what}: {description}"
    return ServerHungError(message, cause=cause) if cause is Cause.HUNG else ServerError(message, cause=cause)
