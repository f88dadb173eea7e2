from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from tuner.core.errors import InputError
from tuner.load.arrivals import arrivals
from tuner.options.recordings import read_intervals, read_timestamps


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "traffic.txt"


def test_intervals_are_microseconds_and_begin_anew(file: Path) -> None:
    file.write_text("# morning\n1000\n\n500.5\n0\n")
    replay = read_intervals(file)
    assert str(replay) == "replay of traffic.txt"
    assert replay.period_ns == 1_500_500
    assert list(islice(arrivals(replay, 0), 5)) == [0, 1_000_000, 1_500_500, 1_500_500, 2_500_500]
    assert replay.level == pytest.approx(3 / 1.5005e-3)


def test_timestamps_are_seconds_from_the_first_and_come_once(file: Path) -> None:
    file.write_text("1700000000.25\n1700000000.5\n1700000000.5\n1700000002\n")
    replay = read_timestamps(file)
    assert replay.period_ns is None
    assert list(arrivals(replay, 0)) == [0, 250_000_000, 250_000_000, 1_750_000_000]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("1\nx\n", ":2: 'x' is not an interval in microseconds"),
        ("1\nnan\n", ":2: 'nan' is not an interval in microseconds"),
        ("1\n-1\n", ":2: an interval must be >= 0"),
        ("0\n0\n", ": all intervals are 0; the rate would be infinite"),
        ("# nothing\n", ": has no requests; write one line with an interval in microseconds for each"),
    ],
)
def test_intervals_that_are_none(file: Path, text: str, complaint: str) -> None:
    file.write_text(text)
    with pytest.raises(InputError) as raised:
        read_intervals(file)
    assert str(raised.value) == f"{file}{complaint}"


def test_times_that_go_back(file: Path) -> None:
    file.write_text("1\n3\n2\n")
    with pytest.raises(InputError, match=r"traffic.txt:3: 2 comes after 3; times must not decrease"):
        read_timestamps(file)


@pytest.mark.parametrize("content", [b"\xff\n", None])
def test_a_file_that_cannot_be_read(file: Path, content: bytes | None) -> None:
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read: (No such file|it is not UTF-8)"):
        read_timestamps(file)
