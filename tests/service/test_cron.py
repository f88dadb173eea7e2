from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.stored import schedule

from tuner.core.errors import JobError
from tuner.service.cron import next_start, window_of

BERLIN = ZoneInfo("Europe/Berlin")
MINUTE = timedelta(minutes=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


def local(cron: str, after: str, zone: str = "Europe/Berlin") -> str:
    """The next start in local time, after a local time."""
    begin = datetime.fromisoformat(after).replace(tzinfo=ZoneInfo(zone))
    found = next_start(schedule(cron, timezone=zone), begin)
    assert found.tzinfo is timezone.utc
    return found.astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M %z")


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        ("0 2 * * *", "2026-06-01 01:59", "2026-06-01 02:00 +0200"),
        ("0 2 * * *", "2026-06-01 02:00", "2026-06-02 02:00 +0200"),
        ("0 2 * * 1-5", "2026-06-05 12:00", "2026-06-08 02:00 +0200"),
        ("*/30 22-23 * * *", "2026-06-01 22:05", "2026-06-01 22:30 +0200"),
        ("0 2 29 2 *", "2026-06-01 00:00", "2028-02-29 02:00 +0100"),
        # The hour from 02:00 does not exist on this day.
        ("30 2 * * *", "2026-03-29 00:00", "2026-03-29 03:00 +0200"),
        # It comes twice on this one.
        ("30 2 * * *", "2026-10-25 00:00", "2026-10-25 02:30 +0200"),
        ("30 2 * * *", "2026-10-25 02:30", "2026-10-26 02:30 +0100"),
    ],
)
def test_the_next_start(cron: str, after: str, expected: str) -> None:
    assert local(cron, after) == expected


@pytest.mark.parametrize("cron", ["0 2 * * *", "30 2 * * *", "0 3 * * *", "59 1 * * *"])
def test_a_year_has_one_start_each_night(cron: str) -> None:
    spec = schedule(cron, timezone="Europe/Berlin")
    nights: Counter[date] = Counter()
    at = utc("2025-12-31 12:00")
    while (at := next_start(spec, at)) < utc("2026-12-31 12:00"):
        nights[at.astimezone(BERLIN).date()] += 1
    assert len(nights) == 365
    assert set(nights.values()) == {1}


@given(
    minute=st.integers(0, 59),
    hour=st.integers(0, 4),
    begin=st.integers(0, 12 * 60),
    first=st.sampled_from([utc("2026-10-24 20:00"), utc("2026-03-28 20:00")]),
)
@example(minute=30, hour=2, begin=5 * 60 + 15, first=utc("2026-10-24 20:00"))
def test_around_a_change_of_the_clock_it_is_the_same_wherever_one_begins(
    minute: int, hour: int, begin: int, first: datetime
) -> None:
    """As if the service was restarted, or the schedule stored again, at any minute: none is repeated or left out."""
    spec = schedule(f"{minute} {hour} * * *", timezone="Europe/Berlin")
    starts = [next_start(spec, first)]
    while starts[-1] < first + timedelta(days=3):
        starts.append(next_start(spec, starts[-1]))
    after = first + begin * MINUTE
    assert next_start(spec, after) == next(start for start in starts if start > after)


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        ("61 * * * *", "cron: '61 [*] [*] [*] [*]': bad minute; the fields are: minute, hour, day, month, weekday"),
        ("0 0 30 2 *", "bad day-of-month"),
        ("0 2 * *", r"cron: needs 5 fields \(minute, hour, day, month, weekday\), got 4: '0 2 \* \*'; write 0 2"),
        ("0 0 2 * * *", "needs 5 fields .* got 6"),
        ("@daily", "needs 5 fields .* got 1"),
        ("", "needs 5 fields .* got 0"),
        ("a b c d e", "bad minute"),
        ("0 0 * * 8", "bad day-of-week"),
    ],
)
def test_a_wrong_expression_is_one_line(cron: str, message: str) -> None:
    with pytest.raises(JobError, match=message) as told:
        next_start(schedule(cron), utc("2026-01-01"))
    assert "\n" not in str(told.value)


@given(cron=st.text(alphabet="0123456789*/-,LW#@SUNMOJA \t", max_size=30) | st.text(max_size=20))
def test_any_text_is_a_start_or_a_message(cron: str) -> None:
    with suppress(JobError):
        assert next_start(schedule(cron), utc("2026-01-01")) > utc("2026-01-01")


@pytest.mark.parametrize(
    ("zone", "hint"),
    [
        ("Europe/Berln", "did you mean 'Europe/Berlin'"),
        ("", "use an IANA name"),
        ("../../etc/passwd", "unknown time zone"),
        ("Europe", "unknown time zone"),
        ("x\0y", "unknown time zone"),
        ("a" * 300, "unknown time zone"),
    ],
)
def test_an_unknown_time_zone_is_said(zone: str, hint: str) -> None:
    with pytest.raises(JobError, match=hint):
        next_start(schedule(timezone=zone), utc("2026-01-01"))


def test_the_window() -> None:
    assert window_of(schedule(window="1h30m")) == timedelta(minutes=90)
    with pytest.raises(JobError, match="window: must be > 0"):
        window_of(schedule(window="0h"))
