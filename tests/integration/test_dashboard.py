"""The dashboard of a real service in a real browser: from the form of a job to the deployed configuration."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys
from support.browser import Browser
from support.command_line import Running, tritontune

from tuner.testing.repositories import ModelRepositoryFactory, config_text

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(500)]

_OPTIONS = """\
max_concurrency: 4
precision: "20%,50%"
seed: 7
trials: 2
"""
_PATIENCE_S = 300.0


@pytest.fixture
def login(tmp_path: Path, each_triton: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:  # noqa: ARG001 (it is on the PATH of the jobs)
    """The address to log in to a service whose repositories are in the current folder."""
    monkeypatch.chdir(tmp_path)
    with Running("serve", "--data", "data", "--listen", "127.0.0.1:0") as service:
        assert service.stdout is not None
        address = service.stdout.readline().rpartition(" ")[2].strip()
        yield service.stdout.readline().split()[2]
        tritontune("cancel", "1", "--wait", "--server", address)  # a job that has ended stays as it is
        service.send_signal(signal.SIGTERM)
        service.communicate(timeout=60)


def _text(browser: Browser, selector: str) -> str:
    return str(browser.run("return document.querySelector(arguments[0])?.textContent ?? ''", selector))


def _proposed(browser: Browser, site: str) -> bool:
    """Whether the page of the job, loaded again, leads to a proposal."""
    browser.open(f"{site}/jobs/1")
    return "Proposal 1" in _text(browser, "#head .actions")


# Only with the real one: it takes a minute, and each step has tests of its own.
@pytest.mark.parametrize("each_triton", [pytest.param("real", marks=pytest.mark.triton)], indirect=True)
def test_from_the_form_to_the_deployed_config(
    browser: Browser, login: str, model_repository: ModelRepositoryFactory
) -> None:
    model_repository.add("slow", config=config_text(max_batch_size=16, sleep_ms=5))
    config = model_repository.path / "slow/config.pbtxt"
    before = config.read_text()
    site = login.partition("/login")[0]

    browser.open(login)
    assert browser.driver.current_url == f"{site}/"
    browser.open(f"{site}/submit")
    entries = {"repository": str(model_repository.path), "model": "slow", "budget": "1h"}
    for name, value in {**entries, "options": _OPTIONS}.items():
        browser.one(f"#{name}").send_keys(value)
    browser.one("#budget").send_keys(Keys.ENTER)
    browser.wait(lambda: _text(browser, "h1").startswith("Job 1"))

    browser.run("window.same = true")
    browser.wait(lambda: _text(browser, "#trials tbody th") == "0", within_s=_PATIENCE_S)
    browser.wait(lambda: browser.all("#front .mark.baseline"))
    browser.wait(lambda: _text(browser, "#trials tbody th") == "1", within_s=_PATIENCE_S)
    browser.wait(lambda: browser.all("#head .state.succeeded"), within_s=_PATIENCE_S)
    assert browser.run("return window.same")
    assert "yes" in _text(browser, "#results")
    assert browser.told() == []

    browser.one("#head .button").click()
    browser.wait(lambda: browser.driver.current_url.endswith("/artifacts/run/report.html"))
    assert "front" in browser.drawn("front")
    assert browser.told() == []

    browser.wait(lambda: _proposed(browser, site))
    browser.driver.find_element("link text", "Proposal 1").click()
    browser.wait(lambda: _text(browser, "h1").startswith("Proposal 1"))
    added = [line.text[1:] for line in browser.all(".diff .added")]
    assert added
    browser.one("#reason").send_keys("measured by night")
    browser.one("button.primary").click()
    browser.wait(lambda: browser.all(".decision.approved"))
    assert "by admin" in _text(browser, ".lead")
    after = config.read_text()
    assert after != before
    assert all(line in after for line in added)
    assert before in {backup.read_text() for backup in config.parent.glob("config.pbtxt.bak-*")}

    elsewhere = {url for url in browser.requested() if not url.startswith((site, "about:", "data:", "blob:"))}
    assert elsewhere == set()
    assert browser.told() == []
