"""The log of the service on stderr: lines for people on a terminal, and JSON for programs elsewhere."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import datetime, timezone
from typing import Any, TextIO

from tuner.core.redaction import without_secrets

# What `Guard` adds to a record of a request.
_REQUEST = ("method", "path", "status", "took_ms", "client", "token")
_JOB = re.compile(r"\bjob (\d+)\b")
_NAME = "tuner"


class JsonLines(logging.Formatter):
    """A record as a line of JSON, without secrets. A message about a job has its number as `job`."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        message = without_secrets(record.getMessage())
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
        }
        if job := _JOB.search(message):
            line["job"] = int(job[1])
        line |= {name: getattr(record, name) for name in _REQUEST if hasattr(record, name)}
        if record.exc_info:
            line["traceback"] = without_secrets(self.formatException(record.exc_info))
        return json.dumps(line)


class Lines(logging.Formatter):
    """A record as a line for people, without secrets."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        return without_secrets(super().format(record))


class _Quiet(logging.Filter):
    """On a terminal, requests that succeeded are left out."""

    def filter(self, record: logging.LogRecord) -> bool:
        return getattr(record, "status", 500) >= 400


def log_to_stderr(stream: TextIO = sys.stderr) -> None:
    """Write the log of the service, and of the web server, to stderr."""
    handler = logging.StreamHandler(stream)
    if stream.isatty():
        handler.setFormatter(Lines())
        handler.addFilter(_Quiet())
    else:
        handler.setFormatter(JsonLines())
    for name, level in ((_NAME, logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
