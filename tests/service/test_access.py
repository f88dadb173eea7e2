"""Who may do what: each role on each route, as the routes tell it; and requests that no route should see."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute
from starlette.testclient import TestClient
from support.service_parts import SUBMITTER, Clock, idle_service
from support.web_services import ClientOf, submission

from tuner.client.resources import ROLES, Role, Submission, TokenSpec
from tuner.service.app import ROUTERS, create_app
from tuner.service.auth import COOKIE
from tuner.service.operations import Service

_OPEN = {"/healthz", "/readyz"}


def _routes() -> Iterator[tuple[str, str, Role | None]]:
    """Method, path and role of each route; None: no token is needed."""
    for router in ROUTERS:
        for route in router.routes:
            assert isinstance(route, APIRoute)
            roles = [role for part in route.dependant.dependencies if (role := getattr(part.call, "role", None))]
            assert len(roles) <= 1
            for method in route.methods or ():
                yield method, route.path, roles[0] if roles else None


_ALL = sorted(_routes(), key=str)
# What may be done with the role submit and above changes something; reading needs the role read; tokens are for admins.
_EXPECTED: dict[tuple[str, str], Role] = {
    ("POST", "/api/v1/jobs"): "submit",
    ("POST", "/api/v1/jobs/{job_id}:cancel"): "submit",
    ("POST", "/api/v1/jobs/{job_id}:retry"): "submit",
    ("PUT", "/api/v1/targets/{name}"): "submit",
    ("DELETE", "/api/v1/targets/{name}"): "submit",
    ("PUT", "/api/v1/schedules/{name}"): "submit",
    ("DELETE", "/api/v1/schedules/{name}"): "submit",
    ("POST", "/api/v1/proposals/{proposal_id}:approve"): "approve",
    ("POST", "/api/v1/proposals/{proposal_id}:reject"): "approve",
    ("GET", "/api/v1/tokens"): "admin",
    ("POST", "/api/v1/tokens"): "admin",
    ("GET", "/api/v1/tokens/{token_id}"): "admin",
    ("DELETE", "/api/v1/tokens/{token_id}"): "admin",
}


def _called(client: TestClient, method: str, path: str, **more: Any) -> int:
    filled = path.replace("{path:path}", "job.log").replace("{name}", "mlp").replace("{token_id}", "0")
    address = filled.replace("{job_id}", "1").replace("{proposal_id}", "1")
    with client.stream(method, address, params={"follow": "false"}, **more) as answer:
        return int(answer.status_code)


@pytest.mark.parametrize(("method", "path", "role"), _ALL)
def test_each_route_needs_the_role_that_is_expected(method: str, path: str, role: Role | None) -> None:
    if path in _OPEN:
        assert role is None
    elif method == "GET":
        assert role == _EXPECTED.get((method, path), "read")
    else:
        assert role == _EXPECTED[method, path]


@pytest.mark.parametrize("own", ROLES)
def test_a_role_may_what_its_routes_say_and_nothing_else(service: Service, client_of: ClientOf, own: Role) -> None:
    service.submit(SUBMITTER, Submission.model_validate(submission(service)))
    client = client_of(own)
    for method, path, role in _ALL:
        body: dict[str, Any] = {"json": {}} if method in {"POST", "PUT"} and ":" not in path else {}
        status = _called(client, method, path, **body)
        if role is None or ROLES.index(own) >= ROLES.index(role):
            assert status not in {401, 403}, path
        else:
            assert status == 403, path


_WRONG_TOKENS = [
    {},
    {"Authorization": "Bearer "},
    {"Authorization": "Bearer x"},
    {"Authorization": "Bearer tt_000000000000_" + "A" * 43},
    {"Authorization": "Basic YWRtaW46YWRtaW4="},
    {"Authorization": "tt_000000000000_" + "A" * 43},
    {"Cookie": f"{COOKIE}=x"},
    {"Cookie": f"{COOKIE}="},
    {"Authorization": "Bearer " + "x" * 10_000},
]


def test_no_route_answers_without_a_valid_token(service: Service) -> None:
    service.submit(SUBMITTER, Submission.model_validate(submission(service)))
    app = create_app(service)
    for number, headers in enumerate(_WRONG_TOKENS):
        client = TestClient(app, "http://127.0.0.1:8100", headers={**headers, "Sec-Fetch-Site": "same-origin"})
        # Each header on some routes, no header on all.
        for method, path, role in [*_ALL[:: 1 + 4 * bool(number)], ("GET", "/api/v1/openapi.json", "read")]:
            assert _called(client, method, path) == (200 if role is None else 401), (path, headers)


def test_a_token_ends_with_its_time(service: Service, clock: Clock, client_of: ClientOf) -> None:
    client = client_of("read")
    spec = TokenSpec(name="short", role="read", expires_at=clock.now.replace(hour=13))
    client.headers["Authorization"] = f"Bearer {service.auth.new_token(spec).secret}"
    assert client.get("/api/v1/jobs").status_code == 200
    clock.advance(3600)
    answer = client.get("/api/v1/jobs")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="tritontune"')
    assert "expired" in answer.json()["detail"]


def _with_session(service: Service, role: Role = "admin") -> TestClient:
    secret = service.auth.new_token(TokenSpec(name="browser", role=role)).secret
    client = TestClient(create_app(service, public_url="https://tuner.example.com"), "http://127.0.0.1:8100")
    client.cookies.set(COOKIE, service.auth.sign_in(token=secret).secret)
    return client


_ORIGINS: list[tuple[dict[str, str], int]] = [
    ({"Sec-Fetch-Site": "same-origin"}, 201),
    ({"Origin": "http://127.0.0.1:8100"}, 201),
    ({"Origin": "http://127.0.0.1:8100", "Sec-Fetch-Site": "same-origin"}, 201),
    ({"Origin": "https://tuner.example.com"}, 201),
    ({}, 403),
    ({"Origin": "null"}, 403),
    ({"Origin": "http://evil.example"}, 403),
    ({"Origin": "http://127.0.0.1:9000"}, 403),
    ({"Origin": "http://127.0.0.1:8100.evil.example"}, 403),
    ({"Sec-Fetch-Site": "cross-site"}, 403),
    ({"Sec-Fetch-Site": "same-site"}, 403),
    ({"Sec-Fetch-Site": "none"}, 403),
    ({"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:8100"}, 403),
    ({"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"}, 403),
]


def test_a_session_changes_things_from_pages_of_this_site_only(service: Service) -> None:
    client = _with_session(service)
    for headers, status in _ORIGINS:
        assert client.post("/api/v1/jobs", json=submission(service), headers=headers).status_code == status, headers
    assert client.get("/api/v1/jobs", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


def test_a_page_of_another_site_cannot_make_a_form_of_json(service: Service) -> None:
    client = _with_session(service)
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        headers = {"Content-Type": kind, "Sec-Fetch-Site": "same-origin"}
        assert client.post("/api/v1/jobs", content=b'{"kind": "tune"}', headers=headers).status_code == 415


def test_a_session_has_the_role_of_its_token_and_ends_with_it(service: Service) -> None:
    client = _with_session(service, "read")
    here = {"Sec-Fetch-Site": "same-origin"}
    assert client.post("/api/v1/jobs", json=submission(service), headers=here).status_code == 403
    token = service.store.tokens().items[0]
    service.store.remove_token(token.id)
    assert client.get("/api/v1/jobs").status_code == 401


def test_a_name_that_leads_here_from_elsewhere_is_refused(service: Service) -> None:
    client = TestClient(create_app(service, public_url="https://tuner.example.com"), "http://127.0.0.1")
    for host in ("127.0.0.1:8100", "localhost:9000", "LOCALHOST", "[::1]:8100", "tuner.example.com"):
        assert client.get("/healthz", headers={"Host": host}).status_code == 200, host
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.", "[::1", "", "example.com"):
        assert client.get("/healthz", headers={"Host": host}).status_code == 421, host


def test_off_loopback_any_name_may_lead_here(service: Service) -> None:
    app = create_app(service, listen="0.0.0.0")  # noqa: S104 (nothing listens)
    assert TestClient(app, "http://10.1.2.3:8100").get("/healthz").status_code == 200


def test_a_body_has_a_limit_with_and_without_its_length(service: Service, client_of: ClientOf) -> None:
    client = client_of("submit")
    kind = {"Content-Type": "application/json"}
    large = b'{"job": {"string_data": "' + b"x" * service.settings.max_body + b'"}}'

    def parts() -> Iterator[bytes]:
        for start in range(0, len(large), 65536):
            yield large[start : start + 65536]

    for content in (large, parts()):
        answer = client.post("/api/v1/jobs", content=content, headers=kind)
        assert answer.status_code == 413
        assert answer.headers["content-type"] == "application/problem+json"
        assert "larger than 1,048,576 bytes" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"[" * 100_000, 400),
        (b'{"job":' * 50_000, 400),
        (b'{"job": {"seed": ' + b"9" * 100_000 + b"}}", 400),
        (b"{", 400),
        (b"", 422),
        (b"\xff\xfe", 400),
        (b"a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]", 400),
        (b'{"job": {"slo": NaN}}', 422),
        (b'{"job": {"slo": ' + b"[" * 500 + b"]" * 500 + b"}}", 422),
        (b'{"job": {"slo": ' + b'{"a":' * 100 + b"1" + b"}" * 100 + b"}}", 422),
    ],
    ids=[
        "deep list",
        "deep mapping",
        "long number",
        "cut off",
        "empty",
        "not UTF-8",
        "YAML",
        "NaN",
        "nested lists",
        "nested mappings",
    ],
)
def test_bodies_that_are_no_use_are_refused(client_of: ClientOf, content: bytes, status: int) -> None:
    answer = client_of("submit").post("/api/v1/jobs", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_yaml_is_not_accepted(client_of: ClientOf) -> None:
    bomb = "a: &a [x,x]\nb: &b [*a,*a]\n"
    answer = client_of("submit").post("/api/v1/jobs", content=bomb, headers={"Content-Type": "application/yaml"})
    assert answer.status_code == 415


def test_what_users_name_comes_back_as_data_only(service: Service, client_of: ClientOf) -> None:
    script = "<script>alert(1)</script>"
    client = client_of("submit")
    answer = client.post("/api/v1/jobs", json={"job": {**submission(service)["job"], "model": script}})
    assert answer.status_code == 201
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert client.get("/api/v1/jobs", params={"model": script}).json()["items"][0]["models"] == [script]


def test_a_settings_file_may_lower_the_limit_of_a_body(tmp_path: Any) -> None:
    with idle_service(tmp_path, max_body="1KiB") as service:
        secret = service.auth.new_token(TokenSpec(name="x", role="submit")).secret
        client = TestClient(create_app(service), "http://127.0.0.1", headers={"Authorization": f"Bearer {secret}"})
        assert client.post("/api/v1/jobs", json={"job": {"string_data": "x" * 1100}}).status_code == 413


def test_the_access_log_has_neither_queries_nor_secrets(client_of: ClientOf, caplog: pytest.LogCaptureFixture) -> None:
    client = client_of("read")
    with caplog.at_level("INFO", "tuner.service.access"):
        client.get("/api/v1/jobs", params={"text": "code-in-the-query"})
    record = caplog.records[-1]
    assert record.getMessage() == "GET /api/v1/jobs 200"
    assert "read-0" in vars(record).values()
    shown = str(vars(record))
    assert "code-in-the-query" not in shown
    assert client.headers["Authorization"].removeprefix("Bearer ") not in shown
