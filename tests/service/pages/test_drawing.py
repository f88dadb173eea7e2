from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.service_examples import around, front_of, nights, trials

from tuner.core.objectives import THROUGHPUT
from tuner.service.pages.drawing import Scale, TimeScale, band, dots, line, sparkline, steps
from tuner.service.pages.front_plots import MOST_DOTS, compared_fronts, front_drawing, limit_ms, upward_of
from tuner.service.pages.history_plots import history_drawings

POSITIVE = st.floats(1e-3, 1e9)


@given(st.lists(POSITIVE, min_size=1, max_size=20))
def test_a_scale_has_room_for_all_values_in_their_order(values: list[float]) -> None:
    scale = Scale.of(values)
    places = [scale.at(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(0 < place < 100 for place in places)


@given(st.lists(POSITIVE, min_size=1, max_size=20), st.integers(2, 8))
def test_ticks_are_few_and_within_the_axis(values: list[float], most: int) -> None:
    ticks = Scale.of(values).ticks(most)
    assert len(ticks) <= most + 1
    assert all(0 <= tick.at <= 100 for tick in ticks)
    assert len({tick.text for tick in ticks}) == len(ticks)


@pytest.mark.parametrize(
    ("low", "high", "log", "texts"),
    [
        (0, 4300, False, ["0", "1,000", "2,000", "3,000", "4,000"]),
        (0, 0.9, False, ["0", "0.2", "0.4", "0.6", "0.8"]),
        (3, 140, True, ["5", "10", "20", "50", "100"]),
        (0.5, 9000, True, ["1", "10", "100", "1,000"]),
    ],
)
def test_ticks_are_round(low: float, high: float, log: bool, texts: list[str]) -> None:  # noqa: FBT001
    assert [tick.text for tick in Scale(low, high, log=log).ticks(6)] == texts


def test_values_outside_of_the_axis_lie_at_its_ends() -> None:
    assert (Scale(0, 10).at(-5), Scale(0, 10).at(50)) == (0, 100)
    assert Scale(1, 10, log=True).at(0) == 0


def test_a_wide_range_is_logarithmic() -> None:
    assert Scale.of([1, 100]).log
    assert not Scale.of([10, 100]).log
    assert not Scale.of([]).log


def test_times_have_ticks_at_days() -> None:
    first = datetime(2026, 11, 1, 2, tzinfo=timezone.utc)
    scale = TimeScale.of(first + timedelta(days=day) for day in range(40))
    assert [tick.text for tick in scale.ticks(5)] == ["Oct 31", "Nov 9", "Nov 18", "Nov 27", "Dec 6"]
    alone = TimeScale.of([first])
    assert alone.at(first) == 50


def test_paths() -> None:
    assert line([(0, 100), (50, 25)]) == "M0 1000L500 250"
    assert steps([(10, 90), (50, 50)]) == "M100 900L500 900L500 500"
    assert dots([(10, 20), (30, 40)]) == "M100 200h0M300 400h0"
    assert band([(0, 0), (100, 0)], [(0, 50), (100, 60)]) == "M0 0L1000 0L1000 600L0 500Z"
    assert (line([]), steps([]), dots([]), band([], [])) == ("", "", "", "")


def test_a_sparkline_shows_small_changes_as_small() -> None:
    assert sparkline([100]) == ""
    heights = [int(text) for text in re.findall(r" (\d+)", sparkline([100, 101]))]
    assert abs(heights[0] - heights[1]) < 120
    assert [int(text) for text in re.findall(r" (\d+)", sparkline([50, 100]))] == [900, 100]


def test_the_plot_of_a_front_shows_all_of_it_and_the_best_above() -> None:
    made = trials(20, running=False)
    front = front_of(made)
    drawing = front_drawing("resnet50", front, made, "p99 <= 40 ms")
    shapes = [mark.shape for mark in drawing.marks]
    assert shapes.count("circle") == len(front) - 1
    assert shapes[-1] == "star"
    assert shapes.count("square") == 8  # the baseline's curve
    assert drawing.limits[0].text == "SLO p99 ≤ 40 ms"
    assert f"{len(front)} of {sum(len(trial.points) for trial in made)} operating points" in drawing.alt


def test_the_plot_of_many_points_is_thinned() -> None:
    made = trials(400, running=False)
    drawing = front_drawing("resnet50", front_of(made), made)
    assert drawing.paths[0].data.count("M") <= MOST_DOTS
    assert len(drawing.marks) < 40


def test_a_front_without_points_says_so() -> None:
    assert "No operating point" in front_drawing("mlp", [], []).missing


def test_a_point_without_a_latency_is_left_out() -> None:
    made = trials(2, running=False)
    broken = made[1].points[0] | {"latency_ms": {"p99": None}}
    made[1] = made[1].model_copy(update={"points": (broken, {"load": {}})})
    assert "8 operating points" in front_drawing("resnet50", front_of(made[:1]), made).alt


def test_fronts_are_told_apart_without_colour() -> None:
    fronts = {f"job {number}": front_of(trials(9, seed=number)) for number in (1, 2, 3)}
    drawing = compared_fronts({**fronts, "job 4": ()}, ["p99 <= 40 ms"] * 4, [THROUGHPUT] * 4)
    assert [key.shape for key in drawing.legend] == ["circle", "diamond", "square"]
    assert "None of these" in compared_fronts({"job 4": ()}, [""], [THROUGHPUT]).missing
    assert drawing.limits
    assert not compared_fronts(fronts, ["p99 <= 40 ms", "", ""], [THROUGHPUT] * 3).limits


def test_fronts_of_different_percentiles_or_objectives_are_not_compared() -> None:
    one = front_of(trials(3))
    other = tuple(point.model_copy(update={"percentile": "p95"}) for point in one)
    assert "p95, p99" in compared_fronts({"a": one, "b": other}, ["", ""], [THROUGHPUT] * 2).missing
    per_gpu = upward_of({"maximize": "throughput_per_gpu"})
    missing = compared_fronts({"a": one, "b": one}, ["", ""], [THROUGHPUT, per_gpu]).missing
    assert missing == "The jobs have different objectives: throughput, throughput per GPU."


def test_the_upward_axis_is_the_objective() -> None:
    made = trials(3, running=False)
    points = tuple({**point, "objective_value": {"value": 7.0, "low": 6.0, "high": 8.0}} for point in made[0].points)
    front = tuple(point.model_copy(update={"objective_value": around(7)}) for point in front_of(made))
    upward = upward_of({"maximize": "inferences_per_joule"})
    drawing = front_drawing("resnet50", front, [made[0].model_copy(update={"points": points})], upward=upward)
    assert (drawing.title, drawing.y_title) == ("Inferences per joule against p99 latency", "inferences/J")
    assert drawing.y_ticks[-1].text == "6"
    assert upward_of({"minimize": "latency.p99", "rate": 100}) == upward_of({}) == THROUGHPUT


@pytest.mark.parametrize(
    ("slo", "percentile", "limit"),
    [
        ("p99 <= 40 ms", "p99", 40.0),
        ("p50 <= 2.5 ms, p99 <= 40 ms", "p50", 2.5),
        ("p99 <= 40 ms", "p50", None),
        ("", "p99", None),
        ("none", "p99", None),
        ("p99 <= soon", "p99", None),
    ],
)
def test_the_limit_of_an_slo_in_words(slo: str, percentile: str, limit: float | None) -> None:
    assert limit_ms(slo, percentile) == limit


def test_the_nights_are_drawn_with_their_outcomes() -> None:
    of_model = nights("search-ranker", "ranker", 40, seed=16)
    throughput, latency = history_drawings(of_model, "p99 <= 25 ms")
    measured = [night for night in of_model if night.throughput]
    assert len(throughput.marks) == len(measured)
    assert {key.text for key in throughput.legend} == {night.outcome for night in measured}
    assert [limit.way for limit in latency.limits] == ["y"]
    assert f"of {len(measured)} nights" in throughput.alt


def test_nights_that_measured_nothing_have_no_plot() -> None:
    failed = [night.model_copy(update={"throughput": None, "latency_ms": None}) for night in nights("a", "m", 3, 1)]
    assert [drawing.missing for drawing in history_drawings(failed)] == ["No night has measured it yet."] * 2
    assert history_drawings([])[0].missing
