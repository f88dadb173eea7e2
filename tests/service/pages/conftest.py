from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from support.service_examples import ExampleService, example_service
from support.service_parts import ADMIN

from tuner.client.resources import Role, TokenSpec
from tuner.service.pages.routes import router

Login = Callable[[Role], TestClient]


def app_of(service: ExampleService) -> FastAPI:
    app = FastAPI()
    app.include_router(router(service))
    return app


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """An admin who only looks."""
    with example_service(tmp_path_factory.mktemp("seen")) as made:
        token = made.new_token(ADMIN, TokenSpec(name="boss", role="admin"))
        client = TestClient(app_of(made), follow_redirects=False)
        client.post("/login", data={"token": token.secret})
        yield client


@pytest.fixture(scope="module")
def nobody(seen: TestClient) -> TestClient:
    """Nobody, who only looks."""
    return TestClient(seen.app, follow_redirects=False)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ExampleService]:
    with example_service(tmp_path) as made:
        yield made


@pytest.fixture
def app(service: ExampleService) -> FastAPI:
    return app_of(service)


@pytest.fixture
def anybody(app: FastAPI) -> TestClient:
    """Nobody is logged in; redirections are not followed."""
    return TestClient(app, follow_redirects=False)


@pytest.fixture
def login(app: FastAPI, service: ExampleService) -> Login:
    """Logs in as somebody of a role."""

    def logged_in(role: Role) -> TestClient:
        token = service.new_token(ADMIN, TokenSpec(name=f"one-who-may-{role}", role=role))
        client = TestClient(app, follow_redirects=False)
        assert client.post("/login", data={"token": token.secret}).status_code == 303
        return client

    return logged_in


@pytest.fixture
def admin(login: Login) -> TestClient:
    return login("admin")
