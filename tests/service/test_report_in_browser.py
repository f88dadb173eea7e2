"""A hostile report in a real browser: its scripts run, as a report needs them, but without the session."""

from __future__ import annotations

import pytest
from support.browser import Browser
from support.service_parts import SUBMITTER
from support.serving import served
from support.web_services import submission

from tuner.client.resources import Submission, TokenSpec
from tuner.service.job_folder import JobFolder
from tuner.service.operations import Service

pytestmark = pytest.mark.browser

_REPORT = """<!doctype html><title>report</title><script>
  const found = {origin: String(self.origin)};
  try { found.cookie = document.cookie; } catch (error) { found.cookie = error.name; }
  try { found.stored = String(localStorage.length); } catch (error) { found.stored = error.name; }
  fetch('/api/v1/jobs').then(() => found.asked = 'answered', () => found.asked = 'refused')
    .then(() => document.title = JSON.stringify(found));
</script><img src="/api/v1/jobs/1"><form action="/api/v1/jobs/1:cancel" method="post"></form>"""


def test_a_report_runs_without_the_session_and_asks_nobody(
    service: Service, browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tuner.service.access")
    service.submit(SUBMITTER, Submission.model_validate(submission(service)))
    run = JobFolder.of(service.jobs_folder, 1).run
    run.mkdir()
    (run / "report.html").write_text(_REPORT)
    token = service.auth.new_token(TokenSpec(name="ann", role="admin"))
    with served(service) as serving:
        browser.open(f"{serving.url}/login?code={service.auth.new_code(token.id)}")
        page = f"{serving.url}/api/v1/jobs/1/artifacts/run/report.html"
        browser.open(page)
        browser.wait(lambda: browser.run("return document.title") != "report")
        assert browser.run("return JSON.parse(document.title)") == {
            "origin": "null",
            "cookie": "SecurityError",
            "stored": "SecurityError",
            "asked": "refused",
        }
        browser.run("document.forms[0].submit()")
        assert service.store.job(1).state == "queued"
    asked = {record.getMessage() for record in caplog.records if "/api/" in record.getMessage()}
    assert asked == {"GET /api/v1/jobs/1/artifacts/run/report.html 200"}
