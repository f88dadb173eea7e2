"""When a schedule starts its jobs: cron expressions in a time zone.

Daylight saving is as in Debian's cron: a start in the hour that is skipped comes right after it, and one in the hour
that is repeated comes once. Starts that come every hour or more often follow the clock of UTC.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from cronsim import CronSim, CronSimError

from tuner.client.resources import ScheduleSpec
from tuner.core.errors import JobError, nearest
from tuner.core.quantities import parse_duration

_FIELDS = "minute, hour, day, month, weekday"


def check_schedule(spec: ScheduleSpec) -> None:
    """Check the fields of a schedule.

    Raises:
        JobError: the cron expression, the time zone or the window is wrong, or no time matches the expression.
    """
    window_of(spec)
    next_start(spec, datetime.now(timezone.utc))


def next_start(spec: ScheduleSpec, after: datetime) -> datetime:
    """The first start of a schedule after a time, UTC.

    Raises:
        JobError: as for `check_schedule`.
    """
    zone = _zone(spec.timezone)
    text = spec.cron.strip()
    fields = len(text.split())
    if fields != 5:
        raise JobError(f"cron: needs 5 fields ({_FIELDS}), got {fields}: {text!r}; write 0 2 * * * for 02:00 each day")
    try:
        for found in CronSim(text, after.astimezone(zone)):
            start = found.astimezone(timezone.utc)
            # In the hour that is repeated, a local time is that of its first time.
            if start > after:
                return start
    except (CronSimError, AssertionError, TypeError, ValueError, OverflowError) as error:
        why = str(error).replace("Bad ", "bad ") or "cannot be read"
        raise JobError(f"cron: {text!r}: {why}; the fields are: {_FIELDS}") from None
    raise JobError(f"cron: {text!r}: no such day comes within 50 years")


def window_of(spec: ScheduleSpec) -> timedelta:
    """The window of a schedule.

    Raises:
        JobError: it is no duration.
    """
    try:
        return timedelta(seconds=parse_duration(spec.window, units=("h", "m")))
    except ValueError as error:
        raise JobError(f"window: {error}") from None


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        hint = nearest(name[:100], available_timezones()) if name else ""
        hint = hint if hint.startswith(";") else "; use an IANA name such as Europe/Berlin or UTC"
        raise JobError(f"timezone: unknown time zone {name[:100]!r}{hint}") from None
