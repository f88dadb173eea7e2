"""The dashboard in a real browser: what it loads, how it looks, and what happens while one looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys
from support.browser import Browser
from support.service_examples import ExampleService, ExampleView, example_service, trials
from support.service_parts import ADMIN
from support.serving import Served, served

from tuner.client.resources import JobProgress, TokenSpec
from tuner.jobs.event_log import EventLog
from tuner.jobs.events import Noted, StateChanged
from tuner.service.auth import COOKIE

pytestmark = pytest.mark.browser

ADDRESSES = (
    "/",
    "/queue",
    "/jobs",
    "/jobs/61",
    "/jobs/57",
    "/compare?jobs=52,56,61",
    "/proposals?state=all",
    "/proposals/4",
    "/history?target=search-ranker",
    "/targets/vision-resnet",
    "/tokens",
    "/submit",
    "/new-target",
    "/new-schedule?target=fraud",
)


@dataclass
class Site:
    """A served dashboard, and a token of its admin."""

    service: ExampleService
    served: Served
    token: str

    def log_in(self, browser: Browser) -> None:
        browser.open(f"{self.served.url}/static/icon.svg")
        browser.driver.delete_all_cookies()
        session = self.service.auth.sign_in(token=self.token)
        browser.driver.add_cookie({"name": COOKIE, "value": session.secret, "sameSite": "Strict"})

    def append(self, kind: type, **fields: object) -> None:
        """An event of job 61."""
        EventLog(self.service.folder(ADMIN, 61).path).append(kind, **fields)


@pytest.fixture
def site(tmp_path: Path, browser: Browser) -> Iterator[Site]:
    """One is logged in."""
    with example_service(tmp_path) as service, served(service) as serving:
        made = Site(service, serving, service.new_token(ADMIN, TokenSpec(name="boss", role="admin")).secret)
        made.log_in(browser)
        yield made
        browser.open("about:blank")  # which ends its stream


def text(browser: Browser, selector: str) -> str:
    """What an element says, as it is now."""
    return str(browser.run("return document.querySelector(arguments[0])?.textContent ?? ''", selector))


def shows_trial(browser: Browser, number: int) -> bool:
    """Whether it is the first in the table."""
    return text(browser, "#trials tbody th") == str(number)


def soon(browser: Browser, condition: Callable[[], object]) -> None:
    assert browser.wait(condition)


@pytest.mark.slow
def test_every_page_fits_loads_nothing_from_elsewhere_and_complains_of_nothing(browser: Browser, site: Site) -> None:
    for address in ADDRESSES:
        for width, dark in ((1280, False), (360, True)):
            browser.open(f"{site.served.url}{address}", width=width, dark=dark)
            assert browser.told() == [], address
            requested = {url for url in browser.requested() if not url.startswith(("about:", "data:"))}
            assert all(url.startswith(site.served.url) for url in requested), (address, requested)
            sizes = browser.run("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
            assert sizes[0] <= sizes[1], (address, width)
            background = browser.run("return getComputedStyle(document.body).backgroundColor")
            assert background == ("rgb(17, 21, 26)" if dark else "rgb(255, 255, 255)")


def test_points_appear_without_a_reload(browser: Browser, site: Site) -> None:
    browser.open(f"{site.served.url}/jobs/61")
    browser.run("window.same = true")
    before = text(browser, "#trials tbody th")
    site.service.views.views[61] = ExampleView(trials(31), progress=JobProgress(trials=30, points=240), phase="search")
    site.append(Noted, text="more")
    soon(browser, lambda: text(browser, "#trials tbody th") == "30")
    assert before == "25"
    assert "30 trials" in text(browser, "#head")
    assert browser.run("return window.same")
    assert browser.told() == []


def test_what_is_read_stays_while_the_page_changes(browser: Browser, site: Site) -> None:
    browser.open(f"{site.served.url}/jobs/61")
    browser.run("const box = document.querySelector('#trials').parentElement; box.focus(); box.scrollTop = 100;")
    browser.run("document.querySelector('details').open = true")
    site.service.views.views[61] = ExampleView(trials(31))
    site.append(Noted, text="more")
    soon(browser, lambda: text(browser, "#trials tbody th") == "30")
    assert browser.run("return document.querySelector('#trials').parentElement.scrollTop") == 100
    assert browser.run("return document.activeElement === document.querySelector('#trials').parentElement")
    assert browser.run("return document.querySelector('details').open")


def test_a_page_that_is_watched_for_long_stays_small(browser: Browser, site: Site) -> None:
    site.service.views.views[61] = ExampleView(trials(60))
    browser.open(f"{site.served.url}/jobs/61")
    count = "return document.querySelectorAll('*').length"
    before = browser.run(count)
    for number in (160, 250):
        site.service.views.views[61] = ExampleView(trials(number))
        site.append(Noted, text="more")
        soon(browser, partial(shows_trial, browser, number - 1))
    assert browser.run(count) < before + 100


def test_the_end_of_a_job_is_shown_and_announced(browser: Browser, site: Site) -> None:
    browser.open(f"{site.served.url}/jobs/61")
    browser.run("window.same = true")
    assert "Cancel the job" in text(browser, "#head")
    site.service.store.change_job(61, among={"running"}, state="succeeded", phase=None)
    site.append(StateChanged, state="succeeded", exit_code=0)
    soon(browser, lambda: "Run again" in text(browser, "#head"))
    soon(browser, lambda: "Job 61 is succeeded" in text(browser, "#announcer"))
    assert "run/report.html" in text(browser, "#files")
    assert browser.run("return window.same")


@pytest.mark.slow
def test_a_service_that_restarts_is_found_again(browser: Browser, site: Site) -> None:
    browser.open(f"{site.served.url}/jobs/61")
    browser.run("window.same = true")
    site.served.stop()
    soon(browser, lambda: "does not answer" in text(browser, ".offline"))
    site.service.views.views[61] = ExampleView(trials(28))
    site.append(Noted, text="while it was away")
    with served(site.service, port=site.served.port):
        soon(browser, lambda: text(browser, "#trials tbody th") == "27")
        soon(browser, lambda: not browser.all(".offline"))
        assert browser.run("return window.same")
        browser.open("about:blank")


def test_who_is_logged_out_meanwhile_sees_the_login(browser: Browser, site: Site) -> None:
    browser.open(f"{site.served.url}/jobs/61")
    for token in site.service.store.tokens().items:
        if token.name == "boss":
            site.service.store.remove_token(token.id)
    site.append(Noted, text="more")
    soon(browser, lambda: text(browser, "h1") == "Log in")
    assert "next=%2Fjobs%2F61" in browser.driver.current_url


def test_a_job_is_submitted_by_the_form(browser: Browser, site: Site) -> None:
    browser.open(f"{site.served.url}/submit")
    browser.one("#repository").send_keys(str(site.service.settings.repository_roots[0]))
    browser.one("#model").send_keys("resnet50")
    browser.one("#slo").send_keys("p99=40")
    browser.one("button.primary").click()
    soon(browser, lambda: browser.all("[role='alert']"))
    assert browser.one("#model").get_attribute("value") == "resnet50"
    browser.one("#slo").send_keys("ms")
    browser.one("button.primary").click()
    soon(browser, lambda: browser.driver.current_url == f"{site.served.url}/jobs/66")
    assert "queued" in text(browser, "#head")


def test_the_keyboard_is_enough_to_log_in_and_approve(browser: Browser, site: Site) -> None:
    browser.driver.delete_all_cookies()
    browser.open(f"{site.served.url}/")
    browser.driver.switch_to.active_element.send_keys(site.token, Keys.ENTER)
    soon(browser, lambda: text(browser, "h1") == "Overview")

    def focused() -> str:
        return str(browser.run("return document.activeElement.textContent.trim()"))

    def press(*keys: str) -> None:
        browser.driver.switch_to.active_element.send_keys(*keys)

    press(Keys.TAB)
    assert focused() == "To the content"
    outline = browser.run("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    press(Keys.ENTER)
    assert browser.run("return document.activeElement.id") == "content"
    for _ in range(3):
        press(Keys.TAB)
    assert "to decide" in focused()
    press(Keys.ENTER)
    soon(browser, lambda: text(browser, "h1") == "Proposals")
    browser.one("tbody a").send_keys(Keys.ENTER)
    soon(browser, lambda: text(browser, "h1").startswith("Proposal 5"))
    browser.one("#reason").send_keys("fine", Keys.TAB)
    assert focused() == "Approve and deploy"
    press(Keys.ENTER)
    soon(browser, lambda: "approved by boss" in text(browser, ".lead"))
    assert site.service.proposal(ADMIN, 5).reason == "fine"


def test_without_scripts_all_but_the_live_part_works(browser: Browser, site: Site) -> None:
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.open(f"{site.served.url}/jobs/61")
        assert browser.one("#trials tbody th").text == "25"
        assert "UTC" in browser.one("time").text
        browser.one("button.danger").click()
        browser.wait(lambda: browser.all(".state.cancelling"))
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_times_are_the_readers(browser: Browser, site: Site) -> None:
    browser.driver.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "Asia/Tokyo"})
    try:
        browser.open(f"{site.served.url}/jobs/61")
        assert "6:09" in browser.one("time[data-both]").text
        assert "(" in browser.one("time[data-both]").text
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": ""})


def test_the_queue_changes_by_itself(browser: Browser, site: Site) -> None:
    browser.open(f"{site.served.url}/queue")
    browser.run("window.same = true")
    site.service.store.change_job(63, among={"queued"}, state="cancelled")
    soon(browser, lambda: text(browser, "#waiting tbody th") == "64")
    assert browser.run("return window.same")
