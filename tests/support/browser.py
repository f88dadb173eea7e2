"""A real browser without a screen, that opens a page and tells what became of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# On a machine that is busy with other things.
_PATIENCE_S = 60.0
# When a container starts or ends, the machine has other networks, and Chromium drops what it is loading, from loopback,
# too.
_NETWORK_CHANGED = "ERR_NETWORK_CHANGED"
_MOST_LOADS = 10


class Browser:
    """Chromium, by Selenium.

    Args:
        driver: Of the browser.
    """

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self._told: list[str] = []

    def open(self, page: Path | str, *, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Open a file or an address, in a window of a size, as somebody who likes it light or dark."""
        self.driver.get("about:blank")
        self.told()
        self.requested()
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.prefer(dark=dark)
        self._load(page if isinstance(page, str) else page.as_uri())

    def _load(self, address: str) -> None:
        for _ in range(_MOST_LOADS):
            try:
                self.driver.get(address)
            except WebDriverException as error:
                if _NETWORK_CHANGED not in str(error):
                    raise
            else:
                self._told = self._console()
                if not any(_NETWORK_CHANGED in message for message in self._told):
                    return
        pytest.fail(f"the networks of this machine changed during each of {_MOST_LOADS} loads of {address}")

    def prefer(self, *, dark: bool) -> None:
        """Change what the reader likes."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def told(self) -> list[str]:
        """What has come on the console since somebody asked. The page itself goes on after another network."""
        told, self._told = [*self._told, *self._console()], []
        return [message for message in told if _NETWORK_CHANGED not in message]

    def _console(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]

    def requested(self) -> set[str]:
        """The URLs that were asked for since somebody asked."""
        entries = self.driver.get_log("performance")  # type: ignore[no-untyped-call]
        messages = [json.loads(entry["message"])["message"] for entry in entries]
        return {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}

    def run(self, script: str, *arguments: Any) -> Any:
        """The answer of a function's body."""
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list[WebElement]:
        """The elements that a CSS selector finds."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        """The first of them."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def wait(self, condition: Callable[[], Any], *, within_s: float = _PATIENCE_S) -> Any:
        """Wait for a condition, which must come true in time; returns what it says then."""
        return WebDriverWait(self.driver, within_s, poll_frequency=0.05).until(lambda _: condition())

    def drawn(self, plot: str) -> dict[str, Any]:
        """What a plot shows, once it is drawn: its traces by name."""
        self.run("document.querySelector(`[data-plot='${arguments[0]}']`).scrollIntoView({block: 'center'})", plot)
        traces: list[dict[str, Any]] = self.wait(lambda: self.run(_TRACES, plot))
        return {trace["name"]: trace for trace in traces}


_TRACES = """
const canvas = document.querySelector(`[data-plot='${arguments[0]}']`);
if (!canvas.querySelector('.main-svg') || !canvas.data) return null;
return canvas.data.map(({name, x, y, customdata, line, marker}) => ({name, x, y, customdata, line, marker}));
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser of its own; without one the test is skipped, which fails on CI."""
    binary = next(filter(None, map(shutil.which, _BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    # Containers have neither a sandbox of their own nor much of /dev/shm.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--lang=en"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield Browser(opened)
    finally:
        opened.quit()
