from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest
import sqlalchemy as sql

from tuner.service.errors import ConflictError
from tuner.service.store.store import Store
from tuner.service.store.tables import HOLDERS

HOLDING = """
import sys, time
from tuner.service.store.store import Store
with Store.opened(sys.argv[1]) as store, store.hold(holder="the first one"):
    print("held", flush=True)
    sys.stdin.read()
"""


def until(store: Store) -> float:
    with store.reading() as connection:
        found: float = connection.execute(sql.select(HOLDERS.c.until_s)).scalar_one()
    return found


def test_the_second_learns_who_holds_it(store: Store) -> None:
    with store.hold() as hold:
        assert store.holder() == hold.holder
        with pytest.raises(ConflictError, match=f"in use by another service: process {os.getpid()} on "), store.hold():
            pass
        with store.hold("something else"):
            pass
    assert store.holder() is None
    with store.hold(holder="again"):
        assert store.holder() == "again"


def test_a_hold_is_renewed(store: Store) -> None:
    with store.hold(lease_s=0.5) as hold:
        first = until(store)
        deadline = time.monotonic() + 60
        while until(store) == first:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert not hold.lost.is_set()


def held_elsewhere(store: Store, until_s: float) -> None:
    with store.writing() as connection:
        values = {"name": "service", "holder": "one elsewhere", "lease": "unknown", "until_s": until_s}
        connection.execute(HOLDERS.insert().values(values))


def now_s(store: Store) -> float:
    with store.reading() as connection:
        return store._now_s(connection)


def test_one_elsewhere_that_lives_is_told_as_soon_as_it_shows_it(store: Store) -> None:
    began = now_s(store)
    held_elsewhere(store, began + 3600)

    def renew() -> None:
        with store.writing() as connection:
            connection.execute(HOLDERS.update().values(until_s=began + 3700))

    timer = threading.Timer(0.2, renew)
    timer.start()
    with pytest.raises(ConflictError, match="in use by another service: one elsewhere"), store.hold(lease_s=3600):
        pass
    timer.join()


def test_one_elsewhere_that_has_ended_is_replaced_when_its_time_is_over(store: Store) -> None:
    held_elsewhere(store, now_s(store) + 0.2)
    with store.hold() as hold:
        assert store.holder() == hold.holder


def test_the_second_may_wait(store: Store) -> None:
    with ExitStack() as first:
        first.enter_context(store.hold(holder="the first"))
        timer = threading.Timer(0.2, first.close)
        timer.start()
        with store.hold(holder="the second", wait_s=600):
            assert store.holder() == "the second"
        timer.join()


def test_who_was_replaced_learns_it(store: Store) -> None:
    told: list[str] = []
    with store.hold(lease_s=0.5) as hold:
        hold.when_lost(lambda: told.append("at once"))
        with store.writing() as connection:
            values = {"holder": "another", "lease": "another", "until_s": 1e12}
            connection.execute(HOLDERS.update().values(values))
        assert hold.lost.wait(60)
    assert told == ["at once"]
    hold.when_lost(lambda: told.append("later"))
    assert told == ["at once", "later"]
    # What is not its own it does not remove.
    assert store.holder() == "another"


@pytest.mark.slow
def test_a_killed_holder_of_this_machine_is_replaced_at_once(place: str) -> None:
    with (
        Store.opened(place) as store,
        subprocess.Popen(
            [sys.executable, "-c", HOLDING, place], stdout=subprocess.PIPE, stdin=subprocess.PIPE
        ) as process,
    ):
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(ConflictError, match="in use by another service: the first one"), store.hold():
            pass
        process.kill()
        process.wait()
        with store.hold() as hold:
            assert store.holder() == hold.holder
