"""A service without processes, and clients of its API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from support.service_parts import Clock, idle_service
from support.web_services import ClientOf

from tuner.client.resources import Role, TokenSpec
from tuner.service.app import create_app
from tuner.service.operations import Service


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(tmp_path: Path, clock: Clock) -> Iterator[Service]:
    with idle_service(tmp_path, clock=clock) as service:
        yield service


@pytest.fixture
def client_of(service: Service) -> ClientOf:
    app = create_app(service)

    def client_of(role: Role) -> TestClient:
        name = f"{role}-{len(service.store.tokens(limit=100).items)}"
        secret = service.auth.new_token(TokenSpec(name=name, role=role)).secret
        return TestClient(app, "http://127.0.0.1:8100", headers={"Authorization": f"Bearer {secret}"})

    return client_of
