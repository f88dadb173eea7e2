from __future__ import annotations

import io

import pytest
from rich.console import Console
from support.builders import interval, point

from tuner.report.words import gain_in_words, latency, point_in_words, points_table, rate


@pytest.mark.parametrize(("value", "text"), [(3541.2, "3,541"), (100, "100"), (73.24, "73.2"), (0.5142, "0.514")])
def test_a_rate(value: float, text: str) -> None:
    assert rate(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.4123, "0.412 ms"), (12.34, "12.3 ms"), (1204.4, "1,204 ms")])
def test_a_latency(value: float, text: str) -> None:
    assert latency(value) == text


def test_a_point() -> None:
    assert point_in_words(point(16, 1234, 12.34), "p90") == "1,234 inferences/s, p90 9.87 ms at concurrency 16"


def test_a_gain() -> None:
    assert gain_in_words(interval(3.456, 0.05)) == "3.46 x the baseline's throughput (3.28 to 3.63)"


def test_a_table_of_points_with_and_without_the_servers_view() -> None:
    silent = point(8, 300, 20, errors=2).model_copy(update={"server": None})
    text = io.StringIO()
    Console(file=text, width=160).print(points_table([point(1, 100, 10), silent]))
    rows = [line.split() for line in text.getvalue().splitlines() if line.strip()[:1].isdigit()]
    assert rows[0][:3] == ["1", "100", "2.0%"]
    assert rows[0][-3:] == ["2.0", "0", "20%"]
    assert rows[1][-2:] == ["2", "20%"]
    assert len(rows[1]) < len(rows[0])
