from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.service_parts import ADMIN, SUBMITTER, FixedViews, front_point
from support.web_services import ClientOf, submission

from tuner.client.resources import DeployedPoint, JobHost, Submission, Target, TargetSpec
from tuner.core.record import Interval
from tuner.service.errors import StoreUnavailableError
from tuner.service.job_folder import JobFolder
from tuner.service.operations import Service


def _is_problem(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["title"]
    return body


def test_a_submission_uses_the_words_of_a_job_file(service: Service, client_of: ClientOf) -> None:
    response = client_of("submit").post("/api/v1/jobs", json=submission(service, budget="10m"))
    assert response.status_code == 201
    assert response.headers["location"] == "/api/v1/jobs/1"
    assert response.headers["etag"] == '"1"'
    job = response.json()
    assert (job["id"], job["state"], job["slo"], job["models"]) == (1, "queued", "p99 <= 40 ms", ["mlp"])
    assert client_of("read").get("/api/v1/jobs/1").json() == job


def test_the_same_key_gives_the_same_job_and_another_body_is_a_conflict(service: Service, client_of: ClientOf) -> None:
    client, headers = client_of("submit"), {"Idempotency-Key": "build-7"}
    answers = [client.post("/api/v1/jobs", json=submission(service), headers=headers) for _ in range(2)]
    assert [(answer.status_code, answer.json()["id"]) for answer in answers] == [(201, 1), (201, 1)]
    other = client.post("/api/v1/jobs", json=submission(service, budget="1m"), headers=headers)
    assert "job 1 was submitted with this key and another body" in _is_problem(other, 409)["detail"]
    assert len(client.get("/api/v1/jobs").json()["items"]) == 1


def test_lists_come_in_pages(service: Service, client_of: ClientOf) -> None:
    for _ in range(5):
        service.submit(SUBMITTER, Submission.model_validate(submission(service)))
    client, found, cursor = client_of("read"), [], None
    while True:
        page = client.get("/api/v1/jobs", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        found += [job["id"] for job in page["items"]]
        if not (cursor := page["next"]):
            break
    assert found == [5, 4, 3, 2, 1]
    assert client.get("/api/v1/jobs", params={"state": ["running", "lost"]}).json()["items"] == []
    assert "cursor" in _is_problem(client.get("/api/v1/jobs", params={"cursor": "x"}), 422)["detail"]
    assert _is_problem(client.get("/api/v1/jobs", params={"limit": 501}), 422)["errors"] == [
        "query limit: must be <= 500, got 501"
    ]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"kind": "tune", "job": {"repository": "{models}", "slo": {"p99": "40"}}}, "slo: "),
        ({"kind": "tune", "job": {"repository": "{models}", "bugdet": "1m"}}, "unknown option 'bugdet'; did you mean"),
        ({"kind": "cook"}, "kind: must be 'tune', 'nightly' or 'measure', got 'cook'"),
        ({"priority": 101}, "priority: must be <= 100, got 101"),
        ({"job": {}, "webhook": "http://x"}, "webhook: is not a field of this resource"),
        ({"target": "../x"}, "target: '../x' is not a name"),
        ({}, "nothing to tune"),
        ([], "body: "),
        ({"job": {"repository": "{models}", "string_data": "\ud800"}}, "half a surrogate pair"),
        ({"job": {"repository": "{models}", "\ud800": 1}}, "job"),
    ],
)
def test_a_wrong_submission_is_one_problem_with_its_place(
    service: Service, client_of: ClientOf, body: Any, reason: str
) -> None:
    models = str(service.data.parent / "models")
    if isinstance(body, dict) and "repository" in body.get("job", {}):
        body["job"]["repository"] = models
    content, kind = json.dumps(body), {"Content-Type": "application/json"}
    problem = _is_problem(client_of("submit").post("/api/v1/jobs", content=content, headers=kind), 422)
    assert reason in problem["detail"]


def test_what_is_not_allowed_is_403_with_the_setting(client_of: ClientOf) -> None:
    answer = client_of("submit").post("/api/v1/jobs", json={"job": {"repository": "/etc"}})
    assert "`repositories`" in _is_problem(answer, 403)["detail"]


def test_cancelling_and_repeating(service: Service, client_of: ClientOf) -> None:
    client = client_of("submit")
    client.post("/api/v1/jobs", json=submission(service))
    _is_problem(client.post("/api/v1/jobs/1:cancel", headers={"If-Match": '"7"'}), 412)
    assert client.post("/api/v1/jobs/1:cancel", headers={"If-Match": '"1"'}).json()["state"] == "cancelled"
    _is_problem(client.post("/api/v1/jobs/1:cancel"), 409)
    headers = {"Idempotency-Key": "again"}
    answers = [client.post("/api/v1/jobs/1:retry", headers=headers) for _ in range(2)]
    assert [(answer.status_code, answer.json()["id"], answer.json()["retry_of"]) for answer in answers] == [
        (201, 2, 1)
    ] * 2
    _is_problem(client.post("/api/v1/jobs/2:retry"), 409)
    _is_problem(client.post("/api/v1/jobs/99:retry"), 404)


def test_the_front_and_the_trials_of_a_job(service: Service, client_of: ClientOf) -> None:
    service.submit(SUBMITTER, Submission.model_validate(submission(service)))
    views = service.views
    assert isinstance(views, FixedViews)
    views.view.points = (front_point(0, 100, 3), front_point(4, 300, 9))
    client = client_of("read")
    assert [point["throughput"]["value"] for point in client.get("/api/v1/jobs/1/front").json()["points"]] == [100, 300]
    assert client.get("/api/v1/jobs/1/trials").json() == {"items": [], "next": None}


def test_the_hosts_of_a_job(service: Service, client_of: ClientOf) -> None:
    service.submit(SUBMITTER, Submission.model_validate(submission(service)))
    views, client = service.views, client_of("read")
    assert isinstance(views, FixedViews)
    assert client.get("/api/v1/jobs/1/hosts").json() == {"items": [], "next": None}
    views.view.hosts = (JobHost(name="w1", state="admitted"), JobHost(name="w2", state="lost", reason="its node died"))
    first = client.get("/api/v1/jobs/1/hosts?limit=1").json()
    (second,) = client.get("/api/v1/jobs/1/hosts", params={"cursor": first["next"]}).json()["items"]
    assert first["items"][0]["name"] == "w1"
    assert (second["name"], second["state"], second["reason"]) == ("w2", "lost", "its node died")
    _is_problem(client.get("/api/v1/jobs/99/hosts"), 404)


def test_files_are_served_so_that_none_runs_with_the_session(service: Service, client_of: ClientOf) -> None:
    service.submit(SUBMITTER, Submission.model_validate(submission(service)))
    run = JobFolder.of(service.jobs_folder, 1).run
    run.mkdir()
    for name in ("report.html", "front.json", "x.svg", "trials.csv", "weights.bin", "server.log"):
        (run / name).write_text("<script>alert(1)</script>")
    client = client_of("read")

    def kind(path: str) -> tuple[str, str | None, str | None]:
        answer = client.get(f"/api/v1/jobs/1/artifacts/{path}")
        assert answer.status_code == 200
        assert answer.text == "<script>alert(1)</script>"
        headers = answer.headers
        assert headers["x-content-type-options"] == "nosniff"
        disposition = headers.get("content-disposition")
        return headers["content-type"].partition(";")[0], disposition, headers.get("content-security-policy")

    html, disposition, policy = kind("run/report.html")
    assert (html, disposition) == ("text/html", None)
    assert policy is not None
    assert policy.startswith("sandbox allow-scripts")
    assert "allow-same-origin" not in policy
    assert kind("report.html") == (html, None, policy)
    strict = "default-src 'none'; frame-ancestors 'none'"
    assert kind("run/front.json") == ("application/json", None, strict)
    assert kind("run/trials.csv") == ("text/plain", None, strict)
    assert kind("run/server.log") == ("text/plain", None, strict)
    assert kind("run/x.svg") == ("image/svg+xml", 'attachment; filename="x.svg"', strict)
    assert kind("run/weights.bin") == ("application/octet-stream", 'attachment; filename="weights.bin"', strict)


@pytest.mark.parametrize(
    "path",
    [
        "../../service.db",
        "..%2f..%2fservice.db",
        "%2e%2e/%2e%2e/service.db",
        "run/..%2f..%2f..%2fsecret",
        "..%5c..%5cservice.db",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "run/link",
        "run/up/passwd",
        ".lease",
        "run/%00",
        "a" * 3000,
        "run",
        "",
        "run/",
    ],
)
def test_no_file_outside_of_the_job_is_served(service: Service, client_of: ClientOf, tmp_path: Path, path: str) -> None:
    service.submit(SUBMITTER, Submission.model_validate(submission(service)))
    folder = JobFolder.of(service.jobs_folder, 1)
    folder.run.mkdir()
    (tmp_path / "secret").write_text("root:x")
    (folder.run / "link").symlink_to(tmp_path / "secret")
    (folder.run / "up").symlink_to("/etc")
    (folder.path / ".lease").write_text("root:x")
    answer = client_of("admin").get(f"/api/v1/jobs/1/artifacts/{path}")
    assert "root:x" not in answer.text
    # The client itself resolves dots: these are other addresses.
    assert answer.status_code in {404, 422} or answer.json().keys() == {"items", "next"}


def test_logs_are_served_without_secrets(service: Service, client_of: ClientOf) -> None:
    service.secrets = type(service.secrets)(("*",), {"API_TOKEN": "plain words of the service"})
    service.submit(SUBMITTER, Submission.model_validate(submission(service)))
    service.store.change_job(1, among={"queued"}, job={"header": {"authorization": "Bearer ${API_TOKEN}"}})
    JobFolder.of(service.jobs_folder, 1).log.write_text("sent plain words of the service\nü\n")
    assert client_of("read").get("/api/v1/jobs/1/artifacts/job.log").text == "sent ***\nü\n"


def test_targets_and_schedules(service: Service, client_of: ClientOf) -> None:
    client = client_of("submit")
    spec = {"job": submission(service)["job"], "description": "the <b>mlp</b>"}
    added = client.put("/api/v1/targets/mlp", json=spec, headers={"If-None-Match": "*"})
    assert (added.status_code, added.headers["etag"], added.json()["job"]) == (201, '"1"', spec["job"])
    _is_problem(client.put("/api/v1/targets/mlp", json=spec, headers={"If-None-Match": "*"}), 412)
    changed = client.put("/api/v1/targets/mlp", json=spec, headers={"If-Match": '"1"'})
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
    assert (
        "has version 2, not 1"
        in _is_problem(client.put("/api/v1/targets/mlp", json=spec, headers={"If-Match": '"1"'}), 412)["detail"]
    )
    _is_problem(client.put("/api/v1/targets/mlp", json={"job": {"repository": "/etc"}}), 403)
    _is_problem(client.put("/api/v1/targets/x%2F..", json=spec), 405)
    _is_problem(client.put("/api/v1/targets/<b>", json=spec), 422)

    schedule = {"cron": "0 2 * * *", "timezone": "Europe/Berlin", "target": "mlp"}
    made = client.put("/api/v1/schedules/nightly", json=schedule)
    assert (made.status_code, made.json()["next_at"]) == (201, "2026-03-02T01:00:00Z")
    assert "cron" in _is_problem(client.put("/api/v1/schedules/x", json={**schedule, "cron": "* *"}), 422)["detail"]
    _is_problem(client.put("/api/v1/schedules/x", json={**schedule, "target": "none"}), 404)
    assert [each["name"] for each in client.get("/api/v1/schedules").json()["items"]] == ["nightly"]
    assert "schedule 'nightly'" in _is_problem(client.delete("/api/v1/targets/mlp"), 409)["detail"]
    _is_problem(client.delete("/api/v1/schedules/nightly", headers={"If-Match": '"9"'}), 412)
    assert client.delete("/api/v1/schedules/nightly").status_code == 204
    assert client.delete("/api/v1/targets/mlp", headers={"If-Match": '"2"'}).status_code == 204
    _is_problem(client.get("/api/v1/targets/mlp"), 404)


def test_a_submission_may_name_a_target(service: Service, client_of: ClientOf) -> None:
    client = client_of("submit")
    client.put("/api/v1/targets/mlp", json={"job": submission(service, budget="10m")["job"]})
    tuning = client.post("/api/v1/jobs", json={"target": "mlp", "job": {"budget": "1m"}}).json()
    assert (tuning["target"], tuning["job"]["budget"], tuning["job"]["model"]) == ("mlp", "1m", "mlp")
    night = client.post("/api/v1/jobs", json={"kind": "nightly", "target": "mlp"}).json()
    assert night["job"]["action"] == "propose"
    measurement = client.post(
        "/api/v1/jobs", json={"kind": "measure", "target": "mlp", "job": {"concurrency": [1, 8]}}
    ).json()
    assert measurement["job"].keys() == {"repository", "model", "concurrency"}


def test_only_an_approver_changes_what_is_deployed_without_approval(service: Service, client_of: ClientOf) -> None:
    spec = {"job": submission(service)["job"], "policy": {"action": "apply"}}
    submitter, approver = client_of("submit"), client_of("approve")
    _is_problem(submitter.put("/api/v1/targets/mlp", json=spec), 403)
    assert approver.put("/api/v1/targets/mlp", json=spec).status_code == 201
    _is_problem(submitter.put("/api/v1/targets/mlp", json={"job": spec["job"]}), 403)
    _is_problem(submitter.delete("/api/v1/targets/mlp"), 403)
    schedule = {"cron": "0 2 * * *", "target": "mlp"}
    _is_problem(submitter.put("/api/v1/schedules/nightly", json=schedule), 403)
    _is_problem(submitter.post("/api/v1/jobs", json={"kind": "nightly", "target": "mlp"}), 403)
    night = {"kind": "nightly", "target": "mlp", "job": {"action": "propose"}}
    assert submitter.post("/api/v1/jobs", json=night).status_code == 201
    assert approver.put("/api/v1/schedules/nightly", json=schedule).status_code == 201


def test_tokens_are_shown_once(service: Service, client_of: ClientOf) -> None:
    client = client_of("admin")
    made = client.post("/api/v1/tokens", json={"name": "ci", "role": "submit"})
    assert made.status_code == 201
    token = made.json()
    other = TestClient(client.app, "http://127.0.0.1:8100", headers={"Authorization": f"Bearer {token['secret']}"})
    assert other.get("/api/v1/jobs").status_code == 200
    assert "secret" not in client.get(f"/api/v1/tokens/{token['id']}").text
    assert token["secret"] not in client.get("/api/v1/tokens").text
    _is_problem(client.post("/api/v1/tokens", json={"name": "ci", "role": "read"}), 409)
    assert client.delete(f"/api/v1/tokens/{token['id']}").status_code == 204
    assert other.get("/api/v1/jobs").status_code == 401
    assert service.tokens(ADMIN).items


def test_hosts_have_slots(client_of: ClientOf) -> None:
    host = client_of("read").get("/api/v1/hosts").json()["items"][0]
    assert host["slots"] == [{"name": "gpu:0", "description": "NVIDIA H200", "job": None}]


def test_unknown_addresses_and_methods_are_problems(client_of: ClientOf) -> None:
    client = client_of("admin")
    _is_problem(client.get("/api/v1/nothing"), 404)
    answer = client.delete("/api/v1/jobs/1")
    _is_problem(answer, 405)
    assert answer.headers["allow"]
    _is_problem(client.get("/api/v1/jobs/0"), 422)
    _is_problem(client.get("/api/v1/jobs/99999999999999999999"), 422)
    _is_problem(client.get("/api/v1/jobs/5"), 404)


def test_a_database_that_is_away_is_503_with_a_time_to_come_again(
    service: Service, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of("read")

    def away(*_: object, **__: object) -> None:
        raise StoreUnavailableError("database x: connection refused")

    monkeypatch.setattr(service.store, "jobs", away)
    monkeypatch.setattr(service.store, "check", away)
    answer = client.get("/api/v1/jobs")
    _is_problem(answer, 503)
    assert answer.headers["retry-after"] == "5"
    ready = client.get("/readyz")
    assert (ready.status_code, ready.text) == (503, "the database does not answer\n")
    assert client.get("/healthz").text == "ok\n"


def test_a_full_disk_is_507_and_leaves_no_job(
    service: Service, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "/data/jobs/1/submission.json")

    monkeypatch.setattr(JobFolder, "write", full)
    answer = _is_problem(client_of("submit").post("/api/v1/jobs", json=submission(service)), 507)
    assert "no space" in answer["detail"]
    assert not service.jobs(ADMIN).items


def test_an_unexpected_error_is_a_problem_without_its_details(
    service: Service, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the secret path /root")

    monkeypatch.setattr(service.store, "jobs", fail)
    reader = client_of("read")
    client = TestClient(reader.app, "http://127.0.0.1:8100", headers=reader.headers, raise_server_exceptions=False)
    assert "/root" not in str(_is_problem(client.get("/api/v1/jobs"), 500))


def test_metrics_tell_jobs_queue_slots_and_requests(service: Service, client_of: ClientOf, clock: Any) -> None:
    service.submit(SUBMITTER, Submission.model_validate(submission(service)))
    service.submit(SUBMITTER, Submission.model_validate(submission(service)))
    service.cancel(SUBMITTER, 2)
    clock.advance(90)
    client = client_of("read")
    client.get("/api/v1/jobs/1")
    text = client.get("/metrics").text
    for line in (
        'tritontune_jobs{state="queued"} 1.0',
        'tritontune_jobs{state="cancelled"} 1.0',
        "tritontune_queue_length 1.0",
        "tritontune_queue_oldest_wait_seconds 90.0",
        'tritontune_slots{host="machine",use="free"} 1.0',
        'tritontune_requests_total{method="GET",route="/api/v1/jobs/{job_id}",status="200"} 1.0',
        "tritontune_event_streams 0.0",
    ):
        assert line in text.split("\n"), line


def test_metrics_tell_how_each_target_does(
    service: Service, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.put_target(ADMIN, "ranking", TargetSpec(job=submission(service)["job"]))

    def with_deployed(targets: Sequence[Target]) -> tuple[Target, ...]:
        point = DeployedPoint(
            model="mlp",
            measured_at=service.clock(),
            throughput=Interval(value=812.0, low=800.0, high=820.0),
            holds_slo=False,
            gain_on_offer=Interval(value=1.25, low=1.2, high=1.3),
        )
        return tuple(target.model_copy(update={"deployed": (point,)}) for target in targets)

    monkeypatch.setattr(service.histories, "with_deployed", with_deployed)
    lines = client_of("read").get("/metrics").text.split("\n")
    for line in (
        'tritontune_slo_holds{model="mlp",target="ranking"} 0.0',
        'tritontune_deployed_throughput{model="mlp",target="ranking"} 812.0',
        'tritontune_gain_on_offer{model="mlp",target="ranking"} 1.25',
    ):
        assert line in lines, line
