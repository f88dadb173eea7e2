"""The web application: the REST API under `/api/v1`, the dashboard, and what operators ask for."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Response
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from tuner.client.resources import Problem
from tuner.core.json_text import json_text
from tuner.service.api import health, history, hosts, jobs, proposals, schedules, targets, tokens
from tuner.service.api.access import PREFIX, Reader
from tuner.service.api.problems import add_problems
from tuner.service.auth import Principal
from tuner.service.guard import Guard
from tuner.service.metrics import Requests
from tuner.service.operations import Service
from tuner.service.pages.routes import router as pages
from tuner.service.refusals import UnauthenticatedError
from tuner.service.streams import EventStreams

ROUTERS = tuple(part.router for part in (jobs, targets, schedules, proposals, hosts, history, tokens, health))
"""The routes of the API, and those for operators."""

_ABOUT = """
Tunes the configuration of models on NVIDIA Triton Inference Server: jobs in a queue over the slots of a host,
schedules, and proposals that wait for approval.

Every request needs a token: `Authorization: Bearer tt_...`. Roles, from the least to the most: read, submit, approve,
admin. Errors are problem details (RFC 9457). Lists come in pages: `next` is the `cursor` of the following page. The
`ETag` of a resource is its version; send it as `If-Match` with a change.
"""


def create_app(
    service: Service,
    *,
    listen: str = "127.0.0.1",
    public_url: str | None = None,
) -> FastAPI:
    """The application.

    Args:
        service: The operations.
        listen: Host that the service listens at; see `Guard`.
        public_url: Address that users have, if it is another one, as behind a proxy.
    """
    app = FastAPI(
        title="tritontune",
        version=version("tritontune"),
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        generate_unique_id_function=_operation_id,
        redirect_slashes=False,
    )
    requests = Requests()
    app.state.service = service
    app.state.requests = requests
    app.state.streams = EventStreams(
        service.settings.max_streams, service.settings.max_streams_per_token, lambda who: _may_still_read(service, who)
    )
    for router in ROUTERS:
        app.include_router(router)
    app.get(f"{PREFIX}/openapi.json", include_in_schema=False)(_description(app))
    app.include_router(pages(service))  # last, as it answers all other addresses
    add_problems(app)
    app.add_middleware(
        Guard, most_bytes=service.settings.max_body, listen=listen, public_url=public_url, requests=requests
    )
    return app


def openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI description of the app."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        components = schema["components"]
        components["schemas"]["Problem"] = Problem.model_json_schema()
        for name in ("HTTPValidationError", "ValidationError"):
            components["schemas"].pop(name, None)
        app.openapi_schema = schema
    return app.openapi_schema


def _description(app: FastAPI) -> Callable[..., Response]:
    def description(_: Reader) -> Response:
        return Response(json_text(openapi(app)), media_type="application/json")

    return description


def _operation_id(route: APIRoute) -> str:
    return route.name


def _may_still_read(service: Service, who: Principal) -> bool:
    """Whether the token of a stream still exists and has not expired."""
    try:
        service.auth.check(who)
    except UnauthenticatedError:
        return False
    return True
