from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from tuner.core.redaction import keep_secret
from tuner.service.guard import ACCESS
from tuner.service.logs import log_to_stderr


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("tuner", "uvicorn")]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def _request(status: int) -> None:
    extra = {"method": "GET", "path": "/jobs/7", "status": status, "took_ms": 1.5, "client": None, "token": "ci"}
    ACCESS.info("%s %s %d", "GET", "/jobs/7", status, extra=extra)


def test_programs_get_a_json_object_a_line_with_the_job(caplog: pytest.LogCaptureFixture) -> None:
    stream = io.StringIO()
    log_to_stderr(stream)
    keep_secret("token", "s3cret-of-a-job")
    log = logging.getLogger("tuner.service.runner")
    log.info("job %d: sent s3cret-of-a-job\nand password=hunter2", 12)
    try:
        raise OSError(28, "No space left on device: password=hunter2")  # noqa: TRY301 (its traceback is logged)
    except OSError:
        log.exception("disk")
    _request(404)
    first, second, third = map(json.loads, stream.getvalue().splitlines())
    assert (first["job"], first["level"], first["logger"]) == (12, "info", "tuner.service.runner")
    assert first["message"] == "job 12: sent ***\nand password=***"
    assert "No space left" in second["traceback"]
    assert "hunter2" not in stream.getvalue()
    assert {name: third[name] for name in ("method", "path", "status", "token")} == {
        "method": "GET",
        "path": "/jobs/7",
        "status": 404,
        "token": "ci",
    }
    assert not caplog.records


def test_people_get_lines_without_requests_that_succeeded() -> None:
    stream = _Terminal()
    log_to_stderr(stream)
    _request(200)
    _request(500)
    logging.getLogger("tuner.service.runner").info("job 3: running")
    assert [line.partition(" ")[2] for line in stream.getvalue().splitlines()] == [
        "INFO GET /jobs/7 500",
        "INFO job 3: running",
    ]
