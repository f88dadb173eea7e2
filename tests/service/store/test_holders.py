from __future__ import annotations

import os
import subprocess
import sys
import time

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


def test_the_second_may_wait(store: Store) -> None:
    with store.writing() as connection:
        values = {"name": "service", "holder": "one elsewhere", "lease": "unknown", "until_s": 1e12}
        connection.execute(HOLDERS.insert().values(values))
    with pytest.raises(ConflictError, match="in use by another service: one elsewhere"), store.hold():
        pass
    with store.writing() as connection:
        connection.execute(HOLDERS.update().values(until_s=store._now_s(connection) + 0.2))
    with store.hold(wait_s=60) as hold:
        assert store.holder() == hold.holder


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
