"""The OpenAPI description: what it has, and that the API is as it says, for generated requests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient
from support.service_parts import ADMIN, SUBMITTER, idle_service
from support.web_services import submission

from tuner.client.resources import ScheduleSpec, Submission, TargetSpec, TokenSpec
from tuner.jobs.event_log import EventLog
from tuner.jobs.events import StateChanged
from tuner.service.app import create_app, openapi
from tuner.service.job_folder import JobFolder
from tuner.service.operations import Service

# For each operation: few in the default run.
_EXAMPLES = int(os.environ.get("TRITONTUNE_API_EXAMPLES", "4"))
_CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with idle_service(tmp_path_factory.mktemp("service"), max_jobs_per_token=5) as service:
        for state in ("queued", "running", "succeeded"):
            job = service.submit(SUBMITTER, Submission.model_validate(submission(service)))
            if state != "queued":
                service.store.change_job(job.id, among={"queued"}, state=state)
                EventLog(JobFolder.of(service.jobs_folder, job.id).path).append(StateChanged, state=state)
        service.put_target(ADMIN, "mlp", TargetSpec(job=submission(service)["job"]))
        service.put_schedule(ADMIN, "nightly", ScheduleSpec(cron="0 2 * * *", target="mlp"))
        yield service


@pytest.fixture(scope="module")
def client(service: Service) -> TestClient:
    secret = service.auth.new_token(TokenSpec(name="generated", role="admin")).secret
    return TestClient(create_app(service), "http://127.0.0.1:8100", headers={"Authorization": f"Bearer {secret}"})


def test_each_operation_and_parameter_is_described(client: TestClient) -> None:
    description = client.get("/api/v1/openapi.json").json()
    assert description == openapi(client.app)  # type: ignore[arg-type]
    ids = []
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            ids.append(operation["operationId"])
            assert operation["description"], path
            assert operation["tags"], path
            assert all(parameter.get("description") for parameter in operation.get("parameters", ())), path
            assert path in {"/healthz", "/readyz"} or operation["security"], path
            statuses = operation["responses"].keys()
            assert path in {"/healthz", "/readyz"} or {"401", "403", "503"} <= statuses, (method, path)
    assert len(set(ids)) == len(ids)
    schemes = description["components"]["securitySchemes"]
    assert {scheme["type"] for scheme in schemes.values()} == {"http", "apiKey"}
    bodies = [o["requestBody"] for p in description["paths"].values() for o in p.values() if "requestBody" in o]
    assert all("examples" in body["content"]["application/json"] for body in bodies)


@pytest.mark.slow
def test_generated_requests_get_what_the_description_says(service: Service, client: TestClient) -> None:
    schema = schemathesis.openapi.from_dict(openapi(client.app))  # type: ignore[arg-type]
    schema.app = client.app
    asked: dict[int, int] = {}
    for found in schema.get_all_operations():
        operation = cast("Any", found).ok()

        @given(case=operation.as_strategy())
        @settings(
            max_examples=_EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        def check(case: Any) -> None:
            if case.path.endswith("/events"):
                case.query = {**(case.query or {}), "follow": "false"}
            response = case.call(base_url="http://127.0.0.1:8100", headers=dict(client.headers))
            asked[response.status_code] = asked.get(response.status_code, 0) + 1
            case.validate_response(response, checks=_CHECKS)

        check()
    assert asked[200] > 10
    assert any(status >= 400 for status in asked)
    assert Path(service.data).exists()
