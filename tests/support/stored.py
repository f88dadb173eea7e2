"""Resources of the service for tests of what is stored."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from tuner.client.resources import Job, Proposal, ScheduleSpec, TargetSpec, Token

T0 = datetime(2026, 1, 1, tzinfo=timezone.utc)


def job(number: int = 1, **fields: Any) -> Job:
    """A queued job."""
    return Job.model_validate({"id": number, "kind": "tune", "state": "queued", "created_at": T0, **fields})


def token(name: str = "ci", **fields: Any) -> Token:
    """A token; its id is made of its name."""
    return Token.model_validate({"id": f"id-{name}", "name": name, "role": "submit", "created_at": T0, **fields})


def proposal(number: int = 1, **fields: Any) -> Proposal:
    """An open proposal."""
    about = {"id": number, "state": "open", "job": 1, "repository": "/models", "model": "mlp", "created_at": T0}
    return Proposal.model_validate({**about, "diff": "-a\n+b\n", **fields})


def target(**fields: Any) -> TargetSpec:
    """A target."""
    return TargetSpec.model_validate({"job": {"repository": "/models", "model": "mlp"}, **fields})


def schedule(cron: str = "0 2 * * *", **fields: Any) -> ScheduleSpec:
    """A schedule of the target `edge`."""
    return ScheduleSpec.model_validate({"cron": cron, "target": "edge", **fields})
