"""What tests of the service's web addresses share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.testclient import TestClient

from tuner.client.resources import Role
from tuner.service.operations import Service

ClientOf = Callable[[Role], TestClient]


def submission(service: Service, **options: Any) -> dict[str, Any]:
    """The body of a submission that the service allows."""
    repository = str(service.data.parent / "models")
    return {"job": {"repository": repository, "model": "mlp", "slo": {"p99": "40ms"}, **options}}
