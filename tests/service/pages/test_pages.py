"""What each page shows, and to whom."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from itertools import pairwise

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx import Response
from support.service_examples import NOW, ExampleService, ExampleView, around, curve, trials
from support.service_parts import ADMIN

from tuner.client.resources import JobHost, JobProgress, JobSlot, Role, TokenSpec, Trial
from tuner.jobs.events import ModelResult
from tuner.report.html.symbols import TIMES
from tuner.service.errors import StoreUnavailableError
from tuner.service.job_view import LogLine

PAGES = (
    "/",
    "/queue",
    "/jobs",
    "/jobs/61",
    "/jobs/61/live",
    "/jobs/57",
    "/compare",
    "/compare?jobs=54,57",
    "/proposals",
    "/proposals/4",
    "/history",
    "/history?target=search-ranker",
    "/targets/vision-resnet",
    "/targets/new-model",
)
Login = Callable[[Role], TestClient]
TEXT = re.compile(r"<[^>]+>")


def text_of(response: Response) -> str:
    """What a page says, without its tags, in one line."""
    assert response.status_code == 200, response.text
    return " ".join(unescape(TEXT.sub(" ", response.text)).split())


@pytest.mark.parametrize("address", [*PAGES, "/submit", "/tokens"])
def test_a_page_is_whole_and_loads_nothing_from_elsewhere(seen: TestClient, address: str) -> None:
    response = seen.get(address)
    assert response.status_code == 200
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["cache-control"] == "no-store"
    assert not re.search(r"\sstyle=|<style|<script(?![^>]* src=)|\son[a-z]+=|https?://", response.text)
    ids = re.findall(r'\sid="([^"]+)"', response.text)
    assert len(ids) == len(set(ids))
    for label in re.findall(r'aria-labelledby="([^"]+)"', response.text):
        assert label in ids
    if not address.endswith("/live"):
        assert response.text.count("<h1>") == 1
        assert 'lang="en"' in response.text


@pytest.mark.parametrize("address", [*PAGES, "/submit", "/tokens"])
def test_who_is_not_logged_in_is_sent_to_the_login(nobody: TestClient, address: str) -> None:
    response = nobody.get(address)
    if address.endswith("/live"):
        assert response.status_code == 401
        return
    assert response.status_code == 303
    assert response.headers["location"].startswith("/login")


def test_the_login_leads_back_to_the_page(anybody: TestClient, service: ExampleService) -> None:
    address = anybody.get("/jobs?text=a%26b").headers["location"]
    form = anybody.get(address)
    after = re.search(r'name="next" value="([^"]+)"', form.text)
    assert after
    token = service.new_token(ADMIN, TokenSpec(name="reader", role="read"))
    response = anybody.post("/login", data={"token": token.secret, "next": unescape(after[1])})
    assert (response.status_code, response.headers["location"]) == (303, "/jobs?text=a%26b")
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie


@pytest.mark.parametrize("after", ["//evil.example", "https://evil.example", "/\\evil.example", "jobs", "/a\nb"])
def test_the_login_leads_to_no_other_site(anybody: TestClient, service: ExampleService, after: str) -> None:
    token = service.new_token(ADMIN, TokenSpec(name="reader", role="read"))
    response = anybody.post("/login", data={"token": token.secret, "next": after})
    assert response.headers["location"] == "/"


def test_a_wrong_token_is_refused(nobody: TestClient) -> None:
    response = nobody.post("/login", data={"token": "tt_wrong"})
    assert response.status_code == 401
    assert 'role="alert"' in response.text
    assert "set-cookie" not in response.headers


def test_a_login_address_logs_in_once(app: FastAPI, service: ExampleService, admin: TestClient) -> None:
    token_id = service.tokens(service.auth.by_session(admin.cookies["tritontune_session"])).items[0].id
    code = service.auth.new_code(token_id)
    client = TestClient(app, follow_redirects=False)
    assert client.get(f"/login?code={code}").status_code == 303
    assert client.get("/").status_code == 200
    assert TestClient(app).get(f"/login?code={code}").status_code == 401


def test_after_the_logout_the_session_is_over(admin: TestClient) -> None:
    session = admin.cookies["tritontune_session"]
    assert admin.post("/logout").status_code == 303
    admin.cookies.set("tritontune_session", session)
    assert admin.get("/").status_code == 303


def test_the_overview_has_every_target(seen: TestClient) -> None:
    text = text_of(seen.get("/"))
    for name in ("vision-resnet", "search-ranker", "speech", "fraud", "new-model"):
        assert name in text
    assert "2 running 3 waiting 2 to decide 1 SLO violated" in text
    assert "p99 ≤ 8 ms violated" in text
    assert "not measured yet" in text
    assert 'href="/proposals/4"' in seen.get("/").text
    assert "15 nights: from" in seen.get("/").text


def test_the_queue_tells_what_each_job_waits_for(seen: TestClient) -> None:
    text = text_of(seen.get("/queue"))
    assert "gpu:0 NVIDIA H200, 139 GiB job 61: resnet50" in text
    assert "cpu:0 cores 8-15 free" in text
    assert "1 63 vision-resnet tune 10" in text
    assert "GPU 0 is held by job 61" in text
    assert "left out on 2026-11-12" in text


def test_the_jobs_are_filtered_and_come_in_pages(seen: TestClient) -> None:
    first = seen.get("/jobs")
    assert len(re.findall(r'name="jobs" value="\d+"', first.text)) == 50
    following = re.search(r'rel="next" href="([^"]+)"', first.text)
    assert following
    second = seen.get(unescape(following[1]))
    assert re.findall(r'name="jobs" value="(\d+)"', second.text) == [str(number) for number in range(15, 0, -1)]
    failed = seen.get("/jobs?state=failed&kind=nightly&target=speech&text=launched")
    numbers = re.findall(r'name="jobs" value="(\d+)"', failed.text)
    assert numbers
    assert all(int(number) % 7 == 2 and int(number) % 4 == 2 and int(number) % 3 for number in numbers)
    assert "<option selected>failed</option>" in failed.text
    assert "No job is like this." in text_of(seen.get("/jobs?text=nowhere"))


def test_a_job_tells_its_state_results_front_trials_and_log(seen: TestClient) -> None:
    response = seen.get("/jobs/61")
    text = text_of(response)
    assert "running search" in text
    assert "25 trials (2 failed), 190 operating points; budget 30m00s for each model" in text
    assert f"1.74{TIMES} 1.60 to 1.88" in text
    assert 'href="/api/v1/jobs/61/artifacts/run/report.html"' in response.text
    assert "20m58s trial 29: 2098 inferences/s" in text
    assert "SLO p99 ≤ 40 ms" in text
    assert response.text.count('href="#mark-star"') == 2  # the best, and its entry of the legend
    assert "out_of_memory: failed to allocate" in text
    assert "slo: p99: 40ms" in text


def test_a_running_job_is_followed_and_an_ended_one_is_not(seen: TestClient) -> None:
    running, ended = seen.get("/jobs/61").text, seen.get("/jobs/57").text
    assert 'data-live="/jobs/61/live" data-every="15" data-events="/api/v1/jobs/61/events"' in running
    assert "trial_ended" in running
    assert "data-live" not in ended
    assert "data-final" in ended


@pytest.mark.parametrize("address", ["/", "/queue", "/jobs/61", "/jobs/61/live"])
def test_the_hosts_of_a_job_tell_what_each_slot_does(admin: TestClient, service: ExampleService, address: str) -> None:
    assert "Job 61:" not in text_of(admin.get(address))
    service.views.views[61].hosts = (
        JobHost(
            name="w1",
            state="admitted",
            description="2 x H200",
            slots=(JobSlot(name="w1/gpu:0", work="trial 26: count 2 <b>", trial=26), JobSlot(name="w1/gpu:1")),
        ),
        JobHost(name="w2", state="lost", reason="its node died", host_class="b"),
        JobHost(name="w3", state="left_out", reason="another GPU: A100"),
    )
    response = admin.get(address)
    told = text_of(response)
    for words in (
        "w1 2 x H200 gpu:0 trial 26: count 2 <b> gpu:1 idle",
        "w2 lost class b its node died",
        "w3 left out another GPU: A100",
    ):
        assert words in told
    if address in {"/", "/queue"}:
        assert "Job 61: resnet50" in told
    levels = [int(level) for level in re.findall(r"<h(\d)", response.text)]
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_a_page_shows_the_first_hosts_of_a_large_cluster(admin: TestClient, service: ExampleService) -> None:
    slots = (JobSlot(name="w/gpu:0", work="trial 1: count 2"),)
    service.views.views[61].hosts = tuple(JobHost(name=f"w{n}", state="lost", slots=slots) for n in range(40))
    told = text_of(admin.get("/jobs/61"))
    assert "w23 lost 16 more hosts, which the API lists." in told
    assert "trial 1: count 2" not in told  # a lost host does nothing


def test_the_trials_of_a_job_on_several_hosts_name_theirs(admin: TestClient, service: ExampleService) -> None:
    view = service.views.views[61]
    assert '<th scope="col">host</th>' not in admin.get("/jobs/61").text
    view.hosts = (JobHost(name="w1", state="admitted"),)
    view.trials[3] = view.trials[3].model_copy(update={"host": "w1"})
    page = admin.get("/jobs/61").text
    assert '<th scope="col">host</th>' in page
    assert page.count("<td><bdi>w1</bdi></td>") == 1


def test_a_job_of_many_trials_has_small_pages(admin: TestClient, service: ExampleService) -> None:
    service.views.views[61] = ExampleView(trials(250))
    first = admin.get("/jobs/61")
    assert len(first.content) < 200_000
    assert first.text.count("<tr") < 150
    assert "200 to 249 of 250 trials" in text_of(first)
    older = re.search(r'rel="next" href="([^"]+)"', first.text)
    assert older
    second = admin.get(unescape(older[1]).partition("#")[0])
    assert "150 to 199 of 250 trials" in text_of(second)
    assert "Newest" in text_of(second)


def test_a_job_of_two_models_shows_one_at_a_time(admin: TestClient, service: ExampleService) -> None:
    results = [
        ModelResult(model="cnn", trial=3, throughput=around(900), gain=around(1.2), percentile="p99"),
        ModelResult(model="m/p<l", trial=None, failure="the baseline cannot be launched"),
    ]
    service.views.views[61] = ExampleView([*trials(5, "cnn"), *trials(4, "m/p<l")], results)
    response = admin.get("/jobs/61")
    assert "Front of m/p<l" in unescape(response.text)
    assert 'href="/jobs/61?model=cnn"' in response.text
    assert "failed the baseline cannot be launched" in text_of(response)
    assert "Front of cnn" in admin.get("/jobs/61?model=cnn").text


def test_a_measurement_shows_its_points(admin: TestClient, service: ExampleService) -> None:
    points = [
        *curve(1500, 3),
        {"load": {"request_rate": 50.0}, "doubts": [{"gate": "x", "reason": "load from elsewhere"}]},
    ]
    measured = Trial(model="conformer", number=0, candidate="", state="running", points=tuple(points))
    service.views.views[62] = ExampleView([measured], progress=JobProgress(points=4))
    response = admin.get("/jobs/62")
    text = text_of(response)
    assert "Progress 4 operating points" in text
    assert re.search(r"concurrency 2 214 210 to 219 .* request rate 50.0 .* load from elsewhere", text)
    assert 'id="trials"' not in response.text
    assert 'id="results"' not in response.text
    assert "Run again" not in text
    assert " measured " in text
    assert "baseline" not in text


def test_a_job_leads_to_its_report_and_proposals(admin: TestClient, service: ExampleService) -> None:
    assert 'href="/proposals/4">Proposal 4</a>' in admin.get("/jobs/54").text
    assert ">Report</a>" not in admin.get("/jobs/56").text
    night = service.folder(ADMIN, 56).run / "models/resnet50"
    night.mkdir(parents=True)
    (night / "report.html").write_text("<!DOCTYPE html>")
    address = "/api/v1/jobs/56/artifacts/run/models/resnet50/report.html"
    assert f'href="{address}">Report</a>' in admin.get("/jobs/56").text


def test_jobs_side_by_side_show_the_options_that_differ(seen: TestClient) -> None:
    response = seen.get("/compare?jobs=52&jobs=56")
    text = text_of(response)
    assert "budget 62m 66m" in text
    assert "repository" not in text.partition("Options that differ")[2]
    assert "job 52 reaches" in response.text
    assert response.text.count("dotted") == 2


@pytest.mark.parametrize(
    ("jobs", "problem"),
    [
        ("12", "Choose two jobs at least."),
        ("12,x", "'x' is not the id of a job."),
        ("12,9999", "No job 9999."),
        ("1,2,3,4,5,6", "At most 5 jobs at once, got 6."),
        ("1,99999999999999999999", "is not the id of a job."),
    ],
)
def test_a_comparison_tells_what_is_wrong(seen: TestClient, jobs: str, problem: str) -> None:
    assert problem in text_of(seen.get(f"/compare?jobs={jobs}"))


def test_a_proposal_has_its_diff_and_evidence(seen: TestClient) -> None:
    response = seen.get("/proposals/4")
    text = text_of(response)
    assert f"1.42{TIMES} the deployed configuration; 95 % interval 1.35 to 1.49" in text
    assert "4 pairs of launches, 41,220 requests; p99 ≤ 40 ms held" in text
    assert '<span class="added">+max_batch_size: 32</span>' in response.text
    assert "Approve and deploy" in text


def test_a_proposal_tells_what_a_person_must_set(login: Login, service: ExampleService) -> None:
    change = {"to_set": ("start tritonserver with --a=<b>",), "throughput": None, "latency_ms": None}
    service.all_proposals[4] = service.all_proposals[4].model_copy(update=change)
    text = text_of(login("read").get("/proposals/4"))
    assert "To set by hand" in text
    assert "start tritonserver with --a=<b>" in unescape(text)
    assert "Throughput" not in text


def test_a_decided_proposal_tells_who_decided(seen: TestClient) -> None:
    text = text_of(seen.get("/proposals/2"))
    assert "rejected by ana" in text
    assert "we drain this model next week" in text
    assert "Approve" not in text
    assert "No proposal waits" not in text_of(seen.get("/proposals"))


def test_the_history_has_plots_of_each_model(seen: TestClient) -> None:
    response = seen.get("/history?target=search-ranker")
    assert response.text.count('role="img"') == 4
    assert "Throughput of" in response.text
    assert 'role="img"' not in seen.get("/history").text
    assert "no slot of the host was free" in text_of(seen.get("/history"))


def test_a_target_shows_what_is_deployed(seen: TestClient) -> None:
    text = text_of(seen.get("/targets/search-ranker"))
    assert "is proposed, and waits for approval, if its gain exceeds 3 %" in text
    assert "search-ranker-nightly : nightly at 0 2 * * * Europe/Berlin" in text
    assert "slo: p99: 25ms" in text


SHOWN: list[tuple[str, str, Role]] = [
    ("/jobs/61", "Cancel the job", "submit"),
    ("/jobs/57", "Run again", "submit"),
    ("/", "Submit a job", "submit"),
    ("/targets/fraud", 'href="/submit?target=fraud"', "submit"),
    ("/proposals/4", "Approve and deploy", "approve"),
    ("/", ">Tokens<", "admin"),
]


@pytest.mark.parametrize(("address", "button", "needed"), SHOWN)
def test_a_button_is_shown_to_those_who_may_use_it(login: Login, address: str, button: str, needed: Role) -> None:
    roles: tuple[Role, ...] = ("read", "submit", "approve", "admin")
    for role in roles:
        shown = button in login(role).get(address).text
        assert shown == (roles.index(role) >= roles.index(needed)), role


@pytest.mark.parametrize(
    ("address", "values", "needed"),
    [
        ("/jobs/61/cancel", {}, "submit"),
        ("/jobs/57/retry", {}, "submit"),
        ("/submit", {"repository": "models", "model": "resnet50"}, "submit"),
        ("/proposals/4/approve", {"version": "1"}, "approve"),
        ("/proposals/4/reject", {"version": "1"}, "approve"),
        ("/tokens", {"name": "x", "role": "admin", "days": ""}, "admin"),
    ],
)
def test_what_one_may_not_do_is_refused(
    login: Login, service: ExampleService, address: str, values: dict[str, str], needed: Role
) -> None:
    before = (service.store.job(61), service.store.jobs(limit=500), dict(service.all_proposals))
    role: Role = {"submit": "read", "approve": "submit", "admin": "approve"}[needed]  # type: ignore[assignment]
    response = login(role).post(address, data=values)
    assert response.status_code == 403
    assert "Not allowed" in response.text
    assert f"This needs the role {needed}" in response.text
    assert (service.store.job(61), service.store.jobs(limit=500), dict(service.all_proposals)) == before


@pytest.mark.parametrize("address", ["/jobs/61/cancel", "/submit", "/proposals/4/approve", "/tokens"])
def test_nothing_changes_without_a_session(anybody: TestClient, service: ExampleService, address: str) -> None:
    response = anybody.post(address, data={"version": "1", "name": "x"})
    assert (response.status_code, response.headers["location"]) == (303, "/login")
    assert service.store.job(61).state == "running"


def test_a_job_is_cancelled(login: Login, service: ExampleService) -> None:
    client = login("submit")
    response = client.post("/jobs/61/cancel")
    assert (response.status_code, response.headers["location"]) == (303, "/jobs/61")
    assert service.store.job(61).state == "cancelling"
    again = client.post("/jobs/57/cancel")
    assert again.status_code == 409
    assert "it is succeeded" in again.text
    assert 'href="/jobs/57"' in again.text


def test_a_proposal_is_approved_once(login: Login, service: ExampleService) -> None:
    client = login("approve")
    response = client.post("/proposals/4/approve", data={"version": "1", "reason": " looks good "})
    assert (response.status_code, response.headers["location"]) == (303, "/proposals/4")
    assert "approved by one-who-may-approve" in text_of(client.get("/proposals/4"))
    assert service.all_proposals[4].reason == "looks good"
    again = client.post("/proposals/4/reject", data={"version": "1"})
    assert again.status_code == 409
    assert "Proposal 4 is approved by one-who-may-approve, not open" in unescape(again.text)


def test_a_job_is_submitted_by_the_form(login: Login, service: ExampleService) -> None:
    client = login("submit")
    form = client.get("/submit")
    key = re.search(r'name="key" value="([^"]+)"', form.text)
    assert key
    repository = str(service.settings.repository_roots[0])
    values = {
        "key": key[1],
        "kind": "tune",
        "repository": repository,
        "model": "resnet50",
        "slo": "p99=40ms, p50 <= 10 ms",
        "budget": "10m",
        "priority": "5",
        "options": "shape: {INPUT: [3, 224, 224]}\n",
    }
    response = client.post("/submit", data=values)
    assert (response.status_code, response.headers["location"]) == (303, "/jobs/66")
    job = service.store.job(66)
    assert (job.kind, job.models, job.slo, job.priority) == ("tune", ("resnet50",), "p50 <= 10 ms, p99 <= 40 ms", 5)
    assert job.job["shape"] == {"INPUT": [3, 224, 224]}
    # Who presses the button twice has one job.
    assert client.post("/submit", data=values).headers["location"] == "/jobs/66"


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"slo": "40ms"}, "slo: '40ms' is not an SLO; write it as p99=25ms"),
        ({"priority": "high"}, "priority: 'high' is not a whole number"),
        ({"priority": "999"}, "priority: "),
        ({"options": "- a"}, "further options: write NAME: VALUE on each line"),
        ({"options": "a: [1"}, "further options:"),
        ({"options": "budget: 5m", "budget": "10m"}, "budget: it is given as a field and in the further options"),
        ({"repository": "/etc"}, "/etc"),
        ({"target": "nothing"}, "no target 'nothing'"),
        ({"kind": "x"}, "kind: "),
    ],
)
def test_a_wrong_form_is_shown_again(login: Login, values: dict[str, str], problem: str) -> None:
    response = login("submit").post("/submit", data={"model": "res<net", **values})
    assert response.status_code in {400, 403}
    assert problem in unescape(response.text)
    assert 'role="alert"' in response.text
    assert 'value="res&lt;net"' in response.text


def test_a_new_token_is_shown_once(admin: TestClient) -> None:
    response = admin.post("/tokens", data={"name": "grafana", "role": "read", "days": "30"})
    assert response.status_code == 303
    assert "tt_" not in response.headers["location"]
    shown = admin.get(response.headers["location"]).text
    secret = re.search(r"tt_[0-9a-f]{12}_[\w-]{43}", shown)
    assert secret
    assert "tt_" not in admin.get(response.headers["location"]).text
    assert admin.post("/login", data={"token": secret[0]}).status_code == 303


def test_another_admin_does_not_see_the_new_token(admin: TestClient, app: FastAPI, service: ExampleService) -> None:
    address = admin.post("/tokens", data={"name": "grafana", "role": "read", "days": ""}).headers["location"]
    other = TestClient(app)
    other.post("/login", data={"token": service.new_token(ADMIN, TokenSpec(name="other", role="admin")).secret})
    assert "tt_" not in other.get(address).text
    assert "tt_" in admin.get(address).text


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"name": "a b"}, "'a b' is not a name"),
        ({"name": "ci"}, "ci"),
        ({"role": "root"}, "role: "),
        ({"days": "x"}, "days: 'x' is not a number of days"),
        ({"days": "-1"}, "must be in the future"),
        ({"days": "9" * 12}, "is not a number of days"),
    ],
)
def test_a_wrong_token_form_is_shown_again(admin: TestClient, values: dict[str, str], problem: str) -> None:
    response = admin.post("/tokens", data={"name": "new", "role": "read", "days": "30", **values})
    assert response.status_code == 400
    assert problem in unescape(response.text)


def test_a_token_is_removed(admin: TestClient, service: ExampleService) -> None:
    page = admin.get("/tokens").text
    removable = re.findall(
        r'action="(/tokens/\w+/remove)"[^>]*><button[^>]*aria-label="Remove the token ([\w-]+)"', page
    )
    assert [name for _, name in removable] == ["ana", "ci", "wall-screen"]
    assert admin.post(removable[1][0]).status_code == 303
    assert "ci" not in [token.name for token in service.store.tokens().items]


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/nothing", 404),
        ("/jobs/0", 404),
        ("/jobs/abc", 404),
        ("/jobs/99999999999999999999", 404),
        ("/jobs/4711", 404),
        ("/targets/..%2f..%2fetc", 404),
        ("/proposals/77", 404),
        ("/static/..%2froutes.py", 404),
        ("/jobs?cursor=nonsense", 400),
        ("/jobs/61?below=x", 400),
    ],
)
def test_an_error_is_a_page(seen: TestClient, address: str, status: int) -> None:
    response = seen.get(address)
    assert response.status_code == status
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert 'href="/">Overview</a>' in response.text


def test_a_database_that_is_away_is_a_page(
    admin: TestClient, service: ExampleService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise StoreUnavailableError("the database does not answer: connection refused")

    monkeypatch.setattr(service.store, "jobs", away)
    response = admin.get("/jobs")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "30"
    assert "Connection refused" in response.text or "connection refused" in response.text
    assert 'href="/jobs">Try again</a>' in response.text


EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


def test_names_are_escaped(admin: TestClient, service: ExampleService) -> None:
    result = ModelResult(model=EVIL, trial=1, throughput=around(9), gain=around(1.2), percentile="p99", ended=EVIL)
    evil_trials = [t.model_copy(update={"candidate": EVIL}) for t in trials(4, EVIL)]
    service.views.views[61] = ExampleView(evil_trials, [result], phase=EVIL, lines=(LogLine(1, NOW, EVIL),))
    service.store.change_job(61, among={"running"}, models=(EVIL,), reason=EVIL, repository=EVIL, job={EVIL: EVIL})
    service.all_proposals[4] = service.all_proposals[4].model_copy(
        update={"model": EVIL, "diff": f"--- a\n+++ b\n@@ -1 +1 @@\n-{EVIL}\n+{EVIL}\n", "evidence": EVIL}
    )
    night = service.all_nights["fraud"][0].model_copy(update={"model": EVIL, "reason": EVIL, "outcome": EVIL})
    service.all_nights["fraud"] = [night]
    for address in ("/", "/queue", "/jobs", "/jobs/61", "/compare?jobs=61,57", "/proposals/4", "/history?target=fraud"):
        text = admin.get(address).text
        assert "<script>alert" not in text
        assert "<img" not in text
        assert "alert(1)" in text, address


def test_static_files_are_kept_by_browsers_in_their_version(nobody: TestClient) -> None:
    page = nobody.get("/login").text
    addresses = re.findall(r'(?:href|src)="(/static/[^"]+)"', page)
    assert len(addresses) == 5
    for address in addresses:
        response = nobody.get(address)
        assert response.status_code == 200
        assert "immutable" in response.headers["cache-control"]
        assert response.headers["x-content-type-options"] == "nosniff"
    assert nobody.get("/static/live.js").headers["cache-control"] == "no-cache"
    assert nobody.get("/favicon.ico").headers["content-type"].startswith("image/svg+xml")


def test_times_are_in_utc_for_the_script_to_change(seen: TestClient) -> None:
    stamp = NOW.replace(hour=9, minute=9).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert f'<time datetime="{stamp}" data-both>2026-11-30 09:09 UTC</time>' in seen.get("/jobs/61").text
