"""The parts of the reference that tell of the service: its REST API and its config file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from tuner.service.app import ROUTERS, openapi
from tuner.service.settings import settings_schema

Table = Callable[[Sequence[str], Sequence[Sequence[str]]], str]
"""Makes a table in Markdown of titles and rows."""

Values = Callable[[Mapping[str, Any]], str]
"""Says in words which values a JSON schema allows."""


def rest_api(table: Table, kinds: Values) -> str:
    """Every request, and every resource with its fields."""
    app = FastAPI()
    for router in ROUTERS:
        app.include_router(router)
    description = openapi(app)
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    tags = list(dict.fromkeys(str(route.tags[0]) for route in routes))
    sections = [f"### {tag}\n\n{_requests(table, [route for route in routes if tag in route.tags])}" for tag in tags]
    schemas = {name: schema for name, schema in description["components"]["schemas"].items() if "[" not in name}
    resources = [
        f"### {name}\n\n{_resource(table, kinds, schema)}"
        for name, schema in schemas.items()
        if "properties" in schema and not name.startswith("Page_")
    ]
    return "\n\n".join(["## Requests", *sections, "## Resources", *resources])


def _requests(table: Table, routes: Sequence[APIRoute]) -> str:
    rows = [
        (f"`{method} {route.path}`", _role(route), _parameters(route), _summary(route))
        for route in routes
        for method in sorted(route.methods or ())
    ]
    return table(("request", "role", "parameters", "what it does"), rows)


def _role(route: APIRoute) -> str:
    roles = (getattr(part.call, "role", None) for part in route.dependant.dependencies)
    return next((role for role in roles if role), "none")


def _parameters(route: APIRoute) -> str:
    """The parameters of the query, and the headers."""
    queries = [f"{field.alias}" for field in route.dependant.query_params]
    headers = [field.alias.title() for field in route.dependant.header_params]
    return ", ".join([*queries, *headers])


def _summary(route: APIRoute) -> str:
    return inspect.cleandoc(route.endpoint.__doc__ or "")


def _resource(table: Table, kinds: Values, schema: Mapping[str, Any]) -> str:
    rows = [(f"`{name}`", kinds(field), field.get("description", "")) for name, field in schema["properties"].items()]
    about = inspect.cleandoc(schema.get("description", "")).partition("\n\nAttributes:")[0]
    return f"{about}\n\n{table(('field', 'value', 'meaning'), rows)}"


def service_settings(keys: Callable[[Mapping[str, Mapping[str, Any]]], str]) -> str:
    """The keys of the service's config file."""
    return keys(settings_schema()["properties"])
