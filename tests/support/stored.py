"""Resources of the service for tests of what is stored."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from tuner.client.resources import Job, Token

T0 = datetime(2026, 1, 1, tzinfo=timezone.utc)


def job(number: int = 1, **fields: Any) -> Job:
    """A queued job."""
    return Job.model_validate({"id": number, "kind": "tune", "state": "queued", "created_at": T0, **fields})


def token(name: str = "ci", **fields: Any) -> Token:
    """A token; its id is made of its name."""
    return Token.model_validate({"id": f"id-{name}", "name": name, "role": "submit", "created_at": T0, **fields})
