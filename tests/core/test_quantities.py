from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.core.quantities import (
    counted,
    format_duration,
    format_size,
    parse_duration,
    parse_share,
    parse_size,
    write_duration,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("25ms", 0.025), ("2.5ms", 0.0025), ("100us", 1e-4), (" 5S ", 5)],
)
def test_reads_what_people_write(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["10x", "", "s", "-5s", "1e3s", "5 s s", "1m-2s", "∞s"])
def test_refuses_anything_else_and_says_what_would_be_right(text: str) -> None:
    with pytest.raises(ValueError, match="write a number with its unit, such as 90s"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["0s", "0h0m", "9000h"])
def test_refuses_no_time_and_more_than_anybody_waits(text: str) -> None:
    with pytest.raises(ValueError, match=f"must be > 0 and <= 8,760h, got '{text}'"):
        parse_duration(text)


def test_refuses_a_number_without_a_unit() -> None:
    with pytest.raises(ValueError, match="^90 has no unit; write 90s or 90m$"):
        parse_duration("90")
    with pytest.raises(ValueError, match=r"^2\.5 has no unit; write 2\.5ms$"):
        parse_duration(" 2.5 ", units=("ms",))


@given(st.floats(min_value=1e-6, max_value=1e6))
def test_a_duration_is_written_without_loss(seconds: float) -> None:
    assert parse_duration(write_duration(seconds)) == pytest.approx(seconds, rel=1e-9)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(600, "10m"), (28_800, "8h"), (90, "90s"), (5400, "90m"), (0.5, "0.5s"), (2.5e-5, "25us"), (1234.5, "1234.5s")],
)
def test_a_duration_is_written_in_its_largest_whole_unit(seconds: float, text: str) -> None:
    assert write_duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "share"),
    [("3%", 0.03), ("2.5 %", 0.025), ("0.03", 0.03), (".5", 0.5), ("1e-3", 1e-3), (0, 0), (0.5, 0.5)],
)
def test_reads_shares(value: float | str, share: float) -> None:
    assert parse_share(value) == pytest.approx(share)


@pytest.mark.parametrize("value", ["", "%", "3 percent", "nan", "inf", True])
def test_refuses_what_is_no_share(value: float | str) -> None:
    with pytest.raises(ValueError, match="is not a share; write it as 3% or 0.03"):
        parse_share(value)


@pytest.mark.parametrize("value", ["100%", "-1%", 1, -0.1])
def test_refuses_shares_out_of_bounds(value: float | str) -> None:
    with pytest.raises(ValueError, match="must be >= 0 and < 1"):
        parse_share(value)


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
    with pytest.raises(ValueError, match="must be >= 1 byte and <= 1,048,576TiB, got '0g'"):
        parse_size("0g")


@pytest.mark.parametrize(
    ("size", "text"), [(512, "512 B"), (1536, "1.5 KiB"), (1 << 30, "1 GiB"), (25e9, "23.3 GiB"), (1 << 50, "1024 TiB")]
)
def test_writes_sizes(size: float, text: str) -> None:
    assert format_size(size) == text


def test_what_is_counted_is_named_but_for_many() -> None:
    assert counted(["a"], "server") == "1 server (a)"
    assert counted(["a", "b", "c", "d", "e"], "server") == "5 servers (a, b, c and 2 more)"
