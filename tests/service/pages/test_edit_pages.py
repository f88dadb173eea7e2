"""The forms of targets and schedules, on the real operations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from support.service_parts import ADMIN, idle_service

from tuner.client.resources import Role, TokenSpec
from tuner.service.operations import Service
from tuner.service.pages.forms import FormError, OptionsForm, SubmitForm
from tuner.service.pages.routes import router


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with idle_service(tmp_path) as made:
        yield made


def client(service: Service, role: Role = "submit") -> TestClient:
    app = FastAPI()
    app.include_router(router(service))
    made = TestClient(app, follow_redirects=False)
    token = service.new_token(ADMIN, TokenSpec(name=f"{role}-{len(service.store.tokens().items)}", role=role))
    made.post("/login", data={"token": token.secret})
    return made


def target(service: Service, **values: Any) -> dict[str, Any]:
    """What one enters into the form of a target."""
    fields = {"name": "recommender", "repository": str(service.data.parent / "models"), "model": "mlp"}
    return {**fields, "slo": "p99=40ms", "budget": "10m", "action": "propose", "version": "0", **values}


def schedule(**values: Any) -> dict[str, Any]:
    """What one enters into the form of a schedule."""
    fields = {"name": "nights", "target": "recommender", "cron": "30 2 * * *", "timezone": "Europe/Berlin"}
    return {**fields, "kind": "nightly", "window": "4h", "priority": "0", "enabled": "true", "version": "0", **values}


def fields_of(page: str) -> dict[str, str]:
    """What a form would send."""
    inputs = re.findall(r'<input[^>]*name="(\w+)"[^>]*value="([^"]*)"', page)
    texts = re.findall(r'<textarea[^>]*name="(\w+)"[^>]*>([^<]*)', page)
    radios = dict(re.findall(r'type="radio" name="(\w+)" value="(\w+)" checked', page))
    return {name: unescape(value) for name, value in [*inputs, *texts]} | radios


def test_a_target_is_added_changed_and_removed(service: Service) -> None:
    browser = client(service)
    assert 'href="/new-target"' in browser.get("/").text
    assert browser.get("/new-target").status_code == 200
    response = browser.post("/new-target", data=target(service, options="shape: {IN: [4]}", min_gain="5 %"))
    assert (response.status_code, response.headers["location"]) == (303, "/targets/recommender")
    made = service.target(ADMIN, "recommender")
    assert (made.policy.min_gain, made.policy.min_regression) == (0.05, 0.1)
    assert made.job["slo"] == {"p99": "40ms"}
    assert made.job["shape"] == {"IN": [4]}

    form = fields_of(browser.get("/targets/recommender/edit").text)
    assert (form["model"], form["slo"], form["budget"], form["min_gain"]) == ("mlp", "p99=40ms", "10m", "5%")
    assert browser.post("/targets/recommender", data={**form, "description": "for the shop"}).status_code == 303
    changed = service.target(ADMIN, "recommender")
    assert (changed.job, changed.policy, changed.description) == (made.job, made.policy, "for the shop")

    late = browser.post("/targets/recommender", data=form)
    assert late.status_code == 409
    assert 'role="alert"' in late.text
    assert browser.post("/targets/recommender/remove", data={"version": changed.version}).status_code == 303
    assert service.targets(ADMIN).items == ()


def test_a_schedule_is_added_changed_and_removed(service: Service) -> None:
    browser = client(service)
    browser.post("/new-target", data=target(service))
    form = browser.get("/new-schedule?target=recommender").text
    assert 'value="recommender-nights"' in form
    response = browser.post("/new-schedule", data=schedule())
    assert (response.status_code, response.headers["location"]) == (303, "/targets/recommender")
    made = service.schedule(ADMIN, "nights")
    assert (made.cron, made.timezone, made.window, made.enabled) == ("30 2 * * *", "Europe/Berlin", "4h", True)
    assert "nights" in browser.get("/targets/recommender").text

    # A box that is not ticked is not sent.
    off = {name: value for name, value in schedule(version="1").items() if name != "enabled"}
    assert browser.post("/schedules/nights", data=off).status_code == 303
    assert not service.schedule(ADMIN, "nights").enabled
    assert " checked" not in browser.get("/schedules/nights").text.partition('name="enabled"')[2].partition(">")[0]
    in_use = browser.post("/targets/recommender/remove", data={"version": "1"})
    assert in_use.status_code == 409
    assert browser.post("/schedules/nights/remove", data={"version": "2"}).status_code == 303
    assert service.schedules(ADMIN).items == ()


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"name": "a b"}, "name: 'a b' is not a name"),
        ({"name": ""}, "name: '' is not a name"),
        ({"slo": "40"}, "slo: '40' is not an SLO"),
        ({"min_gain": "lots"}, "smallest gain: 'lots' is not a share; write it as 3% or 0.03"),
        ({"action": "pray"}, "action: "),
        ({"budget": "soon"}, "budget: "),
        ({"repository": "/etc"}, "/etc"),
        ({"options": "nonsense: 1"}, "nonsense"),
        ({"action": "apply"}, "approve"),
    ],
)
def test_a_wrong_target_is_shown_again(service: Service, values: dict[str, str], problem: str) -> None:
    response = client(service).post("/new-target", data=target(service, description="<b>", **values))
    assert response.status_code in {400, 403}
    assert problem in unescape(response.text)
    assert 'value="&lt;b&gt;"' in response.text
    assert service.targets(ADMIN).items == ()


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"cron": "every night"}, "cron"),
        ({"timezone": "Mars/Olympus"}, "Mars/Olympus"),
        ({"window": "long"}, "window"),
        ({"priority": "x"}, "priority: 'x' is not a whole number"),
        ({"kind": "x"}, "kind: "),
        ({"target": "nothing"}, "no target 'nothing'"),
    ],
)
def test_a_wrong_schedule_is_shown_again(service: Service, values: dict[str, str], problem: str) -> None:
    browser = client(service)
    browser.post("/new-target", data=target(service))
    response = browser.post("/new-schedule", data=schedule(**values))
    assert response.status_code == 400
    assert problem in unescape(response.text)
    assert service.schedules(ADMIN).items == ()


def test_a_name_that_is_taken_is_not_overwritten(service: Service) -> None:
    browser = client(service)
    browser.post("/new-target", data=target(service))
    response = browser.post("/new-target", data=target(service, budget="1h"))
    assert response.status_code == 409
    assert service.target(ADMIN, "recommender").job["budget"] == "10m"


@pytest.mark.parametrize("address", ["/new-target", "/new-schedule?target=recommender", "/targets/recommender/edit"])
def test_readers_get_no_forms(service: Service, address: str) -> None:
    client(service).post("/new-target", data=target(service))
    reader = client(service, "read")
    assert reader.get(address).status_code == 403
    page = reader.get("/targets/recommender").text
    assert "/edit" not in page
    assert "/new-schedule" not in page
    assert "/new-target" not in reader.get("/").text
    assert reader.post("/new-target", data=target(service, name="other")).status_code == 403
    assert reader.post("/targets/recommender/remove", data={"version": "1"}).status_code == 403
    assert service.target(ADMIN, "recommender").version == 1


@pytest.mark.parametrize(
    "job",
    [
        {"repository": "/models", "model": "mlp", "slo": {"p99": "40ms", "p50": "5ms"}, "budget": "10m"},
        {"repository": "/models", "model": ["a", "b"], "shape": {"IN": [4]}},
        {"slo": {"p99": 40.0}, "budget": 600},
        {"model": [], "slo": "p99=4ms"},
        {},
    ],
)
def test_options_come_back_from_the_form_as_they_were(job: dict[str, Any]) -> None:
    assert OptionsForm(**OptionsForm.entered(job)).job() == {k: v for k, v in job.items() if v != []}


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"{c}: &{c} [{','.join(9 * [f'*{before}'])}]\n" for before, c in pairwise("abcdefghij")),
        "a: &a [*a]",
        "a: &a {b: *a}",
        "[" * 50_000,
        "a: " + "[" * 20_000 + "]" * 20_000,
        "a: " + "1" * 90_000,
        f"a: [{','.join(40_000 * ['1'])}]",
    ],
    ids=["bomb", "circle", "circle of mappings", "open", "deep", "digits", "long"],
)
def test_hostile_options_are_refused(text: str) -> None:
    with pytest.raises(FormError, match="further options"):
        SubmitForm(options=text).submission()
