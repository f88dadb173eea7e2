from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.core.quantities import counted, format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("25ms", 0.025), ("2.5ms", 0.0025), ("100us", 1e-4), (" 5S ", 5)],
)
def test_reads_what_people_write(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["10x", "", "10", "s", "-5s", "1e3s", "5 s s", "1m-2s", "∞s"])
def test_refuses_anything_else_and_says_what_would_be_right(text: str) -> None:
    with pytest.raises(ValueError, match="write a number with its unit, such as 90s"):
        parse_duration(text)


def test_refuses_nothing_at_all() -> None:
    with pytest.raises(ValueError, match="not above 0"):
        parse_duration("0s")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(85e-5, "850us"), (0.0025, "2.5ms"), (0.9999, "1s"), (5.04, "5s"), (12.3, "12s"), (90, "1m30s"), (7500, "2h05m")],
)
def test_writes_them_short(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.floats(min_value=1e-6, max_value=1e6))
def test_what_it_writes_it_reads(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=0.06)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1GiB", 1 << 30), ("4g", 4 << 30), ("512m", 512 << 20), ("800MB", 800_000_000), ("1.5 KiB", 1536), ("64", 64)],
)
def test_reads_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "5q", "-1g", "1 2", "1GiB!"])
def test_refuses_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="write a number with its unit, such as 8GiB"):
        parse_size(text)


def test_refuses_a_size_of_nothing() -> None:
    with pytest.raises(ValueError, match="not above 0"):
        parse_size("0g")


@pytest.mark.parametrize(
    ("size", "text"), [(512, "512 B"), (1536, "1.5 KiB"), (1 << 30, "1 GiB"), (25e9, "23.3 GiB"), (1 << 50, "1024 TiB")]
)
def test_writes_sizes(size: float, text: str) -> None:
    assert format_size(size) == text


def test_what_is_counted_is_named_but_for_many() -> None:
    assert counted(["a"], "server") == "1 server (a)"
    assert counted(["a", "b", "c", "d", "e"], "server") == "5 servers (a, b, c and 2 more)"
