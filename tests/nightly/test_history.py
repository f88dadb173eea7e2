from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.builders import interval
from support.nights import conditions, measured, night
from support.postgres import postgres

from tuner.core.errors import JobError
from tuner.nightly.history import History


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty history may be."""
    if request.param == "sqlite":
        return str(tmp_path / "new/history.db")
    import psycopg  # noqa: PLC0415 (only where there is a server)

    url: str = request.getfixturevalue("server")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("drop table if exists tritontune_measurements, tritontune_nights, tritontune_history")
    return url


def test_what_is_recorded_comes_back(place: str) -> None:
    nights = [
        night(1, deployed=None, conditions=None, outcome="failed", reason="it 'crashed'; -- ü"),
        night(2, gain=interval(1.4), outcome="improved", candidate=measured(140.0), candidate_config="f" * 64),
        night(
            3, regression=True, outcome="regression", drift="it got slower", deployed=measured(warnings=("a", "b c"))
        ),
        night(3, model="other"),
    ]
    with History.opened(place) as history:
        for each in nights:
            history.add(each)
    with History.opened(place) as history:
        assert history.nights() == nights
        assert history.models == ("mlp", "other")
        assert history.nights(models=["other"]) == nights[3:]
        assert history.nights(last=1) == nights[2:]


def test_latencies_are_kept_at_all_percentiles(place: str) -> None:
    latencies = {"p95": interval(8.0), "p99": interval(10.0).model_copy(update={"high": math.inf})}
    kept = night(1, deployed=measured(percentile="p95", latency_ms=latencies))
    with History.opened(place) as history:
        history.add(kept)
        assert history.nights() == [kept]
        (told,) = history.past(kept.conditions or conditions())
        assert told.measured.latency == interval(8.0)


def test_a_history_of_an_older_version_is_added_to(place: str) -> None:
    """One without the columns that were not there in the beginning, which that version still writes to."""
    old = night(1)
    with History.opened(place) as history:
        history.add(old)
        with history._engine.begin() as connection:
            for column in ("percentile", "latency_ms"):
                connection.exec_driver_sql(f"ALTER TABLE tritontune_measurements DROP COLUMN {column}")
    new = night(2, deployed=measured(percentile="p50", latency_ms={"p50": interval(5.0)}))
    for _ in range(2):
        with History.opened(place) as history:
            assert history.nights() == [old]
    with History.opened(place) as history:
        history.add(new)
        assert history.nights() == [old, new]
        assert [each.measured.percentile for each in history.past(conditions())] == ["p99", "p50"]


def test_only_the_same_conditions_are_compared(place: str) -> None:
    with History.opened(place) as history:
        for number, changed in enumerate(
            [{}, {"config": "other"}, {"hardware": "8 CPU cores"}, {"server": "2.52"}, {"requests": "[]"}, {}], start=1
        ):
            history.add(
                night(number, conditions=conditions(**changed), deployed=measured(float(number)), files=f"f{number}")
            )
        history.add(night(7, repository="/others"))
        told = [(each.night[8:10], each.measured.throughput.value, each.files) for each in history.past(conditions())]
    assert told == [("01", 1.0, "f1"), ("06", 6.0, "f6")]


def test_what_took_the_place_is_the_history_of_the_next_night(place: str) -> None:
    first = night(1, regression=True, candidate=measured(140.0), candidate_config="f" * 64)
    with History.opened(place) as history:
        history.add(first)
        (past,) = history.past(conditions(config="f" * 64))
        (before,) = history.past(conditions())
    assert (past.measured, past.regression) == (measured(140.0), False)
    assert (before.measured, before.regression) == (measured(), True)


def test_tables_of_another_version_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with History.opened(str(path)) as history:
        history.add(night())
    with sqlite3.connect(path) as database:
        database.execute("update tritontune_history set schema = 99")
    database.close()
    before = path.read_bytes()
    with (
        pytest.raises(JobError, match="has tables of version 99, this tritontune needs 1"),
        History.opened(str(path)),
    ):
        pass
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("place", "complaint"),
    [
        ("/proc/nowhere/history.db", "history: /proc/nowhere: cannot be created"),
        ("mysql://user:s3cret@host/db", "mysql databases are not supported"),
        (
            "postgresql://me:s3cret@127.0.0.1:1/db",
            "history: postgresql://me:\\*\\*\\*@127.0.0.1:1/db: .*refused",
        ),
        ("://", "not a database URL"),
    ],
)
def test_what_cannot_be_opened_is_said_in_one_line(place: str, complaint: str) -> None:
    with pytest.raises(JobError, match=complaint) as caught, History.opened(place):
        pass
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "history.db").write_text("this is a text, and a rather long one" * 50)
    with pytest.raises(JobError, match="file is not a database"), History.opened(str(tmp_path / "history.db")):
        pass


def test_the_driver_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(JobError, match=r"pip install 'tritontune\[postgres\]'"), History.opened("postgresql://h/db"):
        pass
