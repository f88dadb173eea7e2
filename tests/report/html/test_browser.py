"""The page in a real browser: what it loads, draws, and does."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select
from support.browser import Browser
from support.builders import identity, point, space, trial

from tuner.measure.points import OperatingPoint
from tuner.report.html.page import write_report
from tuner.results.result_files import write_results
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study

pytestmark = pytest.mark.browser

PLOTS = ("front", "load-throughput", "load-latency", "time", "progress", "importance")


@pytest.fixture
def page(run: RunFolder, study: Study) -> Path:
    """Of a baseline, a better candidate, and one that failed."""
    write_results(run, study)
    return write_report(run)


@pytest.fixture
def front(run: RunFolder, page: Path) -> dict[str, Any]:
    """The same study for machines."""
    told: dict[str, Any] = json.loads((run.model("mlp") / "front.json").read_text())
    assert page.exists()
    return told


def test_nothing_is_fetched_and_nothing_goes_wrong(browser: Browser, long_page: Path) -> None:
    browser.open(long_page)
    for plot in PLOTS:
        assert browser.drawn(plot)
    assert browser.told() == []
    assert browser.requested() == {long_page.as_uri()}
    assert browser.all("article.model")[0].get_attribute("id") == "model-1"


def test_the_plot_shows_the_points_of_front_json(browser: Browser, page: Path, front: dict[str, Any]) -> None:
    browser.open(page)
    traces = browser.drawn("front")
    told = [(p["trial"], p["latency_ms"]["p99"]["value"], p["throughput"]["value"]) for p in front["front"]]
    shown = traces["front"]
    assert list(zip(shown["customdata"], shown["x"], shown["y"], strict=True)) == told
    best = front["best"]
    assert (traces["best"]["customdata"], traces["best"]["y"]) == ([best["trial"]], [best["throughput"]["value"]])
    baseline = [p["throughput"]["value"] for p in front["baseline"]]
    assert [value for value in traces["baseline"]["y"] if value is not None] == baseline


def test_every_operating_point_is_in_the_plot(browser: Browser, long_run: RunFolder, long_page: Path) -> None:
    browser.open(long_page)
    traces = browser.drawn("front")
    shown = [y for name in ("candidates", "baseline") for y in traces[name]["y"] if y is not None]
    study = Study.load(long_run.database, "mlp")
    assert sorted(shown) == pytest.approx(sorted(p.throughput.value for t in study.trials for p in t.curve), rel=1e-4)
    assert len(browser.all("[data-plot='front'] .scatterlayer .point")) >= len(shown)


def test_the_best_is_chosen_at_first(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.one(".selection h3").text.startswith("Trial 1: dynamic_batching, max_batch_size 64")
    assert browser.one("tr.chosen").get_attribute("data-trial") == "1"


def test_a_click_on_a_point_chooses_its_candidate(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.drawn("front")
    place = browser.run(
        """
        const canvas = document.querySelector("[data-plot='front']");
        const box = canvas.getBoundingClientRect(), {xaxis, yaxis} = canvas._fullLayout;
        const trace = canvas.data.find(({name}) => name === "baseline");
        return [box.left + xaxis._offset + xaxis.d2p(trace.x[1]), box.top + yaxis._offset + yaxis.d2p(trace.y[1])];
        """
    )
    for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
        event = {"type": kind, "x": place[0], "y": place[1], "clickCount": 1}
        button = {} if kind == "mouseMoved" else {"button": "left"}
        browser.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {**event, **button})
        if kind == "mouseMoved":
            hovered = browser.wait(lambda: [e.text for e in browser.all(".hoverlayer .hovertext")])
            assert "trial 0" in hovered[0]
            assert "the baseline" in hovered[0]
    browser.wait(lambda: browser.one(".selection h3").text == "Trial 0: the baseline")
    assert browser.one("tr.chosen").get_attribute("data-trial") == "0"
    selected = browser.drawn("front")["selected candidate"]
    assert selected["y"] == [100, 110]


def test_the_keyboard_chooses_from_the_table(browser: Browser, page: Path) -> None:
    browser.open(page)
    button = browser.one("tr[data-trial='2'] th button")
    assert button.get_attribute("aria-pressed") == "false"
    button.send_keys(Keys.ENTER)
    assert browser.one("tr[data-trial='2'] th button").get_attribute("aria-pressed") == "true"
    assert browser.one(".selection h3").text == "Trial 2: instance_group.count 4"
    assert "it did not work" in browser.one(".selection").text
    assert browser.one(".chosen-link").text == "Trial 2 is shown above"
    browser.one("tr[data-trial='0'] th button").send_keys(Keys.SPACE)
    assert browser.one(".selection h3").text == "Trial 0: the baseline"
    assert [row.get_attribute("data-trial") for row in browser.all("tr.chosen")] == ["0"]


def _column(browser: Browser, number: int) -> list[str]:
    cells: list[str] = browser.run(
        "const rows = [...document.querySelectorAll('.trials tbody tr:not([hidden])')];"
        "return rows.map((row) => row.cells[arguments[0]].innerText)",
        number,
    )
    return cells


def test_the_table_sorts_by_what_is_in_it(browser: Browser, long_page: Path) -> None:
    browser.open(long_page)
    header = browser.all(".trials thead th")[2]
    assert header.text.startswith("inferences/s")
    for way, backwards in (("ascending", False), ("descending", True)):
        header.find_element("css selector", "button").send_keys(Keys.ENTER)
        assert header.get_attribute("aria-sort") == way
        rates = [float(text.replace(",", "")) for text in _column(browser, 2)[:150]]
        assert rates == sorted(rates, reverse=backwards)
        assert _column(browser, 2)[150:] == [""] * 20
    assert [h.get_attribute("aria-sort") for h in browser.all(".trials thead th")].count("none") == len(
        browser.all(".trials thead th")
    ) - 1


def test_the_table_filters_by_words_and_outcome(browser: Browser, long_page: Path) -> None:
    browser.open(long_page)
    assert browser.one(".shown").text == "170 of 170 trials"
    outcome = Select(browser.one(".filter-fared"))
    outcome.select_by_visible_text("failed")
    browser.wait(lambda: browser.one(".shown").text == "20 of 170 trials")
    assert set(_column(browser, 1)) == {"crashed"}
    outcome.select_by_visible_text("all")
    browser.one(".filter-text").send_keys("count 1, MAX_batch_size 8")
    browser.wait(lambda: browser.one(".shown").text not in {"20 of 170 trials", "170 of 170 trials"})
    words = browser.run(
        "return [...document.querySelectorAll('.trials tbody tr:not([hidden])')].map((row) => row.dataset.words)"
    )
    assert words
    assert all(each.endswith("count 1") and "max_batch_size 8," in each for each in words)


@pytest.mark.parametrize("width", [375, 768, 1200])
def test_a_page_is_never_wider_than_its_window(browser: Browser, long_page: Path, width: int) -> None:
    browser.open(long_page, width=width)
    for plot in PLOTS:
        browser.drawn(plot)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert (
        browser.run("return document.querySelector('[data-plot=front] .main-svg').getBoundingClientRect().right")
        <= width
    )


def _contrast(browser: Browser, text: str, background: str) -> float:
    """Of two of the page's colours, as WCAG 2 counts."""

    def luminance(name: str) -> float:
        colour = browser.run(
            "return getComputedStyle(document.documentElement).getPropertyValue(arguments[0]).trim()", f"--{name}"
        )
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(text), luminance(background)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_all_colours_can_be_read(browser: Browser, page: Path, *, dark: bool) -> None:
    browser.open(page, dark=dark)
    for text in ("text", "muted", "accent", "good", "warn", "bad"):
        for background in ("page", "surface"):
            assert _contrast(browser, text, background) >= 4.5, (text, background)
    for text in ("good", "bad", "warn"):
        assert _contrast(browser, text, f"{text}-tint") >= 4.5, text
    for text in ("text", "muted", "accent"):
        assert _contrast(browser, text, "warn-tint") >= 4.5, text
    # What is drawn needs 3:1.
    for line in ("baseline", "best", *(f"series-{number}" for number in range(1, 7))):
        assert _contrast(browser, line, "page") >= 3, line


def test_plots_change_with_what_the_reader_likes(browser: Browser, page: Path) -> None:
    browser.open(page)
    light = browser.drawn("front")["front"]["marker"]["color"]
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    browser.prefer(dark=True)
    browser.wait(lambda: browser.drawn("front")["front"]["marker"]["color"] != light)
    assert browser.run("return getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert browser.told() == []


def test_it_prints_with_every_plot_in_it(browser: Browser, page: Path) -> None:
    browser.open(page, dark=True)
    printed = browser.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert base64.b64decode(printed["data"]).startswith(b"%PDF")
    assert all(browser.run("return [...document.querySelectorAll('.canvas')].map((c) => Boolean(c.data))"))
    assert browser.run("return document.documentElement.dataset.print") is None
    assert browser.told() == []


def test_everything_has_words_for_who_cannot_see_it(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert all(len(canvas.get_attribute("aria-label") or "") > 30 for canvas in browser.all(".canvas"))
    assert {canvas.get_attribute("role") for canvas in browser.all(".canvas")} == {"img"}
    assert browser.one("html").get_attribute("lang") == "en"
    assert all(header.get_attribute("aria-sort") for header in browser.all(".trials thead th"))
    assert all(header.get_attribute("scope") for header in browser.all("th"))
    ids = [element.get_attribute("id") for element in browser.all("[id]")]
    assert len(ids) == len(set(ids))


NAMES = [
    "модель",
    "模型-モデル-모델",
    "نموذج",
    "मॉडल",
    "μοντέλο 🚀",
    "<img src=x onerror=pwned=1>",
    "<!--<script>",
    "a&amp;b\"'`{{7*7}}",
]


def _with_html(name: str) -> OperatingPoint:
    return point(1, 100, 10, errors=2).model_copy(update={"error": f"UNAVAILABLE: {name}"})


def test_names_in_every_script_and_with_html_in_them(browser: Browser, tmp_path: Path) -> None:
    run, built = RunFolder(tmp_path), space()
    evil = "<b onclick=pwned=1>%{x}</b></script><script>pwned=1</script>"
    for name in NAMES:
        study = Study.create_or_resume(run.database, identity(model=name, server=evil, repository=f"/models/{evil}"))
        study.add(trial(0, _with_html(evil), point(2, 100, 10), parameters=built.baseline), built)
        better = built.normalize({"instance_group.count": 2})
        config = f"# {evil}\n" + built.candidate(better).config.text
        study.add(trial(1, point(1, 300, 10), parameters=better, config=config), built)
        study.end(evil)
    browser.open(write_report(run))
    assert [heading.text for heading in browser.all("h1")] == sorted(NAMES)
    links = [link.text for link in browser.all("nav a bdi")]
    assert links == sorted(NAMES)
    assert browser.run("return typeof pwned") == "undefined"
    assert browser.all("main img, main b") == []
    browser.drawn("front")
    assert evil in browser.one(".selection .diff").text
    assert browser.told() == []
    browser.run("document.querySelectorAll('.canvas').forEach((canvas) => canvas.scrollIntoView())")
    assert browser.run("return typeof pwned") == "undefined"


def test_of_no_trial_at_all(browser: Browser, run: RunFolder) -> None:
    Study.create_or_resume(run.database, identity()).end("model 'mlp': the baseline failed: it is gone")
    browser.open(write_report(run))
    told = "no trial of this model has finished: model 'mlp': the baseline failed: it is gone"
    assert told in browser.one(".answer").text
    assert browser.one(".gain strong").text == "No result"
    assert browser.told() == []


def test_of_failures_alone(browser: Browser, run: RunFolder) -> None:
    study, built = Study.create_or_resume(run.database, identity()), space()
    study.add(trial(0, point(1, 100, 90, errors=4), parameters=built.baseline), built)
    browser.open(write_report(run))
    assert "none of 1 trials holds p99 ≤ 25 ms" in browser.one(".answer").text
    assert "no operating point was measured" in browser.one(".front").text.lower()
    assert browser.one(".selection h3").text == "Trial 0: the baseline"
    assert browser.told() == []


def test_of_one_trial(browser: Browser, run: RunFolder) -> None:
    study, built = Study.create_or_resume(run.database, identity()), space()
    study.add(trial(0, point(1, 100, 10), parameters=built.baseline), built)
    browser.open(write_report(run))
    assert "gain: none yet: only the baseline was measured" in browser.one(".answer").text
    assert browser.drawn("front")["front"]["y"] == [100]
    assert "needs 10 trials" in browser.one("main").text
    assert browser.told() == []
