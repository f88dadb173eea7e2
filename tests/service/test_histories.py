from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sql
from support.builders import interval
from support.nights import measured, night
from support.stored import T0, proposal, target

from tuner.client.resources import DeployedPoint, Target
from tuner.nightly.history import History, Night, _measurements, _nights
from tuner.service.errors import CursorError, StoreUnavailableError
from tuner.service.histories import TREND, Histories
from tuner.service.store.store import Store


class Past:
    """A history, and the targets `edge` (the models of /models) and `one` (mlp in /other)."""

    def __init__(self, store: Store, path: Path) -> None:
        self.store, self.path = store, path
        self.histories = Histories(path, store)
        self.edge = store.put_target("edge", target(job={"repository": "/models", "slo": {"p99": "25ms"}}))
        self.one = store.put_target("one", target(job={"repository": "/other", "model": "mlp"}))

    def add(self, *nights: Night) -> None:
        with History.opened(str(self.path)) as history:
            for each in nights:
                history.add(each)

    def deployed(self, of: Target | None = None) -> list[DeployedPoint]:
        (found,) = self.histories.with_deployed([of or self.edge])
        return list(found.deployed)


@pytest.fixture
def past(tmp_path: Path) -> Iterator[Past]:
    with Store.opened(f"sqlite:///{tmp_path}/service.db") as store:
        yield Past(store, tmp_path / "nightly/history.db")


def test_without_nights_there_is_nothing(past: Past) -> None:
    assert past.histories.nights().items == ()
    assert past.deployed() == []
    assert not past.path.exists()


def test_nights_come_in_pages_with_their_target(past: Past) -> None:
    past.add(
        night(1),
        night(2, model="cnn", outcome="improved", gain=interval(1.3), candidate=measured(130.0), action="replaced"),
        night(2, repository="/other", outcome="failed", reason="it crashed", deployed=None, conditions=None),
        night(3, repository="/nobody", regression=True, outcome="regression", drift="it got slower"),
    )
    first = past.histories.nights(limit=3)
    second = past.histories.nights(cursor=first.next, limit=3)
    found = (*first.items, *second.items)
    assert second.next is None
    assert [(each.target, each.repository, each.model) for each in found] == [
        (None, "/nobody", "mlp"),
        ("one", "/other", "mlp"),
        ("edge", "/models", "cnn"),
        ("edge", "/models", "mlp"),
    ]
    slower, failed, improved, kept = found
    assert (slower.regression, slower.reason) == (True, "it got slower")
    assert (failed.throughput, failed.reason) == (None, "it crashed")
    assert improved.throughput == interval(130.0)
    assert (improved.gain, improved.action) == (interval(1.3), "replaced")
    assert (kept.percentile, kept.night.isoformat()) == ("p99", "2026-01-01T03:00:00+00:00")
    assert kept.latency_ms == measured().latency


def test_nights_are_filtered(past: Past) -> None:
    past.add(night(1), night(1, model="cnn"), night(1, repository="/other"))

    def found(*wanted: Any) -> list[tuple[str, str]]:
        return [(each.repository, each.model) for each in past.histories.nights(*wanted).items]

    assert found(past.edge) == [("/models", "cnn"), ("/models", "mlp")]
    assert found(past.one) == [("/other", "mlp")]
    assert found(None, "mlp") == [("/other", "mlp"), ("/models", "mlp")]
    assert found(past.edge, "cnn") == [("/models", "cnn")]
    assert found(past.one, "cnn") == found(None, "nobody") == []
    with pytest.raises(CursorError):
        past.histories.nights(cursor="x")


def test_the_deployed_point_is_that_of_the_last_measured_night(past: Past) -> None:
    past.add(
        night(1, deployed=measured(90.0)),
        night(2, candidate=measured(130.0, 12.0), outcome="improved"),
        night(3, deployed=None, conditions=None, outcome="failed"),
        night(1, model="cnn", deployed=measured(50.0, 26.0)),
    )
    cnn, mlp = past.deployed()
    assert (mlp.model, mlp.throughput, mlp.latency_ms) == ("mlp", interval(130.0), measured(p99=12.0).latency)
    assert (mlp.last_night, mlp.trend, mlp.percentile, mlp.holds_slo) == ("failed", (90.0, 130.0), "p99", True)
    assert mlp.measured_at.isoformat() == "2026-01-02T03:00:00+00:00"
    assert (cnn.model, cnn.holds_slo) == ("cnn", False)


def test_unknown_is_null(past: Past) -> None:
    past.add(night(1, deployed=None, conditions=None, outcome="failed"), night(1, repository="/other"))
    (mlp,) = past.deployed()
    assert (mlp.throughput, mlp.holds_slo, mlp.trend, mlp.last_night) == (None, None, (), "failed")
    (mlp,) = past.deployed(past.one)  # it has no SLO
    assert mlp.holds_slo is None


def test_an_open_proposal_is_the_gain_on_offer(past: Past) -> None:
    past.add(night(1))
    past.store.add_proposal(proposal(1, gain=interval(1.2)))
    past.store.add_proposal(proposal(2, gain=interval(1.3)))
    past.store.add_proposal(proposal(3, gain=interval(9.9), repository="/other"))
    (mlp,) = past.deployed()
    assert mlp.gain_on_offer == interval(1.3)
    past.store.store_proposal(proposal(1, state="withdrawn"))
    past.store.store_proposal(proposal(2, state="rejected"))
    (mlp,) = past.deployed()
    assert mlp.gain_on_offer is None


def test_an_approved_proposal_counts_until_the_next_night(past: Past) -> None:
    known = {"throughput": interval(200.0), "latency_ms": interval(20.0), "percentile": "p99"}
    past.add(night(1))  # 2026-01-01T03:00
    later = T0.replace(day=2)
    past.store.add_proposal(proposal(1, state="approved", decided_at=later, created_at=later, **known))
    (mlp,) = past.deployed()
    assert (mlp.throughput, mlp.holds_slo, mlp.measured_at) == (interval(200.0), True, later)
    past.add(night(3, deployed=measured(190.0)))
    (mlp,) = past.deployed()
    assert mlp.throughput == interval(190.0)


def test_the_trend_is_of_the_last_nights(past: Past) -> None:
    past.add(*(night(1 + n % 28, deployed=measured(100.0 + n)) for n in range(TREND + 5)))
    (mlp,) = past.deployed()
    assert mlp.trend == tuple(100.0 + n for n in range(5, TREND + 5))


def test_a_damaged_history_leaves_the_targets(past: Past, caplog: pytest.LogCaptureFixture) -> None:
    past.path.parent.mkdir()
    past.path.write_bytes(b"no database" * 1000)
    past.store.add_proposal(proposal(1, gain=interval(1.2)))
    (mlp,) = past.deployed()
    assert mlp.gain_on_offer == interval(1.2)
    past.deployed()
    assert len(caplog.messages) == 1
    assert "history.db: file is not a database" in caplog.text
    with pytest.raises(StoreUnavailableError, match="history.db: file is not a database"):
        past.histories.nights()


@pytest.mark.slow
def test_years_of_nights_are_cheap(past: Past) -> None:
    """A page and the overview read what they show: the time of a page of 30 targets stays far below a second."""
    with History.opened(str(past.path)) as history:
        history.add(night(1))
        with history._engine.begin() as connection:
            for table in (_nights, _measurements):
                row = dict(connection.execute(sql.select(table)).mappings().one())
                numbered = ({**row, "id": n, "night_id": n, "model": f"m{n % 30}"} for n in range(2, 30_000))
                rows = [{name: value for name, value in each.items() if name in row} for each in numbered]
                connection.execute(table.insert(), rows)
    began = time.process_time()
    assert len(past.histories.nights(limit=50).items) == 50
    assert len(past.histories.nights(past.edge, "m7", limit=50).items) == 50
    page = time.process_time() - began
    began = time.process_time()
    assert len(past.deployed()) == 31
    first = time.process_time() - began
    began = time.process_time()
    past.deployed()
    again = time.process_time() - began
    print(f"pages {page * 1e3:.1f} ms, overview {first * 1e3:.1f} ms, again {again * 1e3:.2f} ms")  # noqa: T201
    assert page < 1
    assert first < 2
    assert again < 0.2
