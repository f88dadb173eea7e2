from __future__ import annotations

import threading
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from support.stored import T0, schedule, target

from tuner.client.resources import Schedule
from tuner.core.errors import JobError
from tuner.service.errors import ConflictError, NotFoundError
from tuner.service.store.store import Store

HOUR = timedelta(hours=1)


@pytest.fixture
def at(store: Store) -> list[datetime]:
    """The time of the store, which tests may change."""
    now = [T0]
    store.clock = lambda: now[0]
    return now


def test_a_target_is_added_and_changed(store: Store, at: list[datetime]) -> None:
    made = store.put_target("edge", target(description="ü"))
    assert (made.version, made.created_at, made.updated_at) == (1, T0, T0)
    at[0] += HOUR
    changed = store.put_target("edge", target(description="new"), if_version=1)
    assert (changed.version, changed.created_at, changed.updated_at) == (2, T0, T0 + HOUR)
    assert store.target("edge") == changed
    assert store.targets().items == (changed,)


def test_a_change_needs_its_version(store: Store) -> None:
    store.put_target("edge", target(), if_version=0)
    for version, message in ((0, "target 'edge' exists"), (2, "target 'edge' has version 1, not 2")):
        with pytest.raises(ConflictError, match=message):
            store.put_target("edge", target(), if_version=version)
    with pytest.raises(ConflictError, match="target 'other' does not exist"):
        store.put_target("other", target(), if_version=1)
    with pytest.raises(ConflictError, match="has version 1, not 3"):
        store.remove_target("edge", if_version=3)
    store.remove_target("edge", if_version=1)


def test_one_of_many_new_targets_at_once_wins(store: Store) -> None:
    won: list[int] = []

    def put(number: int) -> None:
        try:
            store.put_target("edge", target(description=str(number)), if_version=0)
        except ConflictError:
            return
        won.append(number)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [str(number) for number in won] == [store.target("edge").description]


@pytest.mark.parametrize("name", ["gone", "\0", "", "x" * 3000, "../edge", "EDGE"])
def test_an_unknown_name_is_said(store: Store, name: str) -> None:
    store.put_target("edge", target())
    with pytest.raises(NotFoundError, match="no target"):
        store.target(name)
    with pytest.raises(NotFoundError, match="no target"):
        store.remove_target(name)
    with pytest.raises(NotFoundError, match="no schedule"):
        store.remove_schedule(name)


def test_targets_come_in_pages(store: Store) -> None:
    names = [f"t{number}" for number in range(5)]
    for name in names:
        store.put_target(name, target())
    first = store.targets(limit=3)
    store.put_target("a-new-one-before", target())
    second = store.targets(cursor=first.next, limit=3)
    assert [each.name for each in (*first.items, *second.items)] == names
    assert second.next is None


def test_a_schedule_knows_its_next_start(store: Store, at: list[datetime]) -> None:
    store.put_target("edge", target())
    made = store.put_schedule("nights", schedule("30 3 * * *"))
    assert made.next_at == T0 + 3.5 * HOUR
    assert store.schedule("nights") == made
    assert store.schedules().items == (made,)
    at[0] += 4 * HOUR
    assert store.put_schedule("nights", schedule("30 3 * * *")).next_at == T0 + 27.5 * HOUR
    assert store.put_schedule("nights", schedule(enabled=False)).next_at is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cron": "61 * * * *"}, "cron: '61 .*': bad minute"),
        ({"timezone": "Mars/Base"}, "unknown time zone 'Mars/Base'"),
        ({"window": "soon"}, "window: 'soon' is not a duration"),
        ({"window": "8"}, "window: 8 has no unit; write 8h or 8m"),
    ],
)
def test_a_wrong_schedule_is_refused(store: Store, fields: dict[str, str], message: str) -> None:
    store.put_target("edge", target())
    with pytest.raises(JobError, match=message):
        store.put_schedule("nights", schedule(**fields))
    assert store.schedules().items == ()


def test_a_schedule_needs_its_target(store: Store) -> None:
    with pytest.raises(NotFoundError, match="no target 'edge'"):
        store.put_schedule("nights", schedule())
    store.put_target("edge", target())
    store.put_schedule("nights", schedule())
    with pytest.raises(ConflictError, match="target 'edge' is used by schedule 'nights'; remove the schedule first"):
        store.remove_target("edge")
    store.remove_schedule("nights")
    store.remove_target("edge")


def test_due_schedules_are_those_whose_time_has_come(store: Store) -> None:
    store.clock = lambda: T0
    store.put_target("edge", target())
    store.put_schedule("b", schedule("0 3 * * *"))
    store.put_schedule("a", schedule("0 3 * * *"))
    store.put_schedule("early", schedule("0 1 * * *"))
    store.put_schedule("off", schedule("0 1 * * *", enabled=False))

    def due(hours: float) -> list[str]:
        return [each.name for each in store.due_schedules(T0 + hours * HOUR)]

    assert (due(0.99), due(1), due(3)) == ([], ["early"], ["early", "a", "b"])


def test_a_start_is_recorded_without_a_new_version(store: Store) -> None:
    store.clock = lambda: T0
    store.put_target("edge", target())
    made = store.put_schedule("nights", schedule())
    advanced = store.advance_schedule(made, next_at=T0 + 26 * HOUR, last_job=7, note="")
    assert isinstance(advanced, Schedule)
    assert (advanced.version, advanced.last_job) == (1, 7)
    assert store.due_schedules(T0 + 25 * HOUR) == []
    # A user's change is not overwritten.
    changed = store.put_schedule("nights", schedule("0 5 * * *"), if_version=1)
    assert changed.last_job == 7
    assert store.advance_schedule(made, note="old") is None
    assert store.schedule("nights") == changed
    store.remove_schedule("nights")
    assert store.advance_schedule(changed, note="old") is None


def test_what_is_stored_is_there_when_opened_again(tmp_path: Path) -> None:
    for _ in range(2):
        with Store.opened(f"sqlite:///{tmp_path}/service.db") as store:
            store.put_target("edge", target())
    with Store.opened(f"sqlite:///{tmp_path}/service.db") as store:
        assert store.target("edge").version == 2
