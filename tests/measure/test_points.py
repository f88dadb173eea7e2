from __future__ import annotations

import pytest
from support.builders import point

from tuner.core.loads import Concurrency, Load, Ramp, Replay, RequestRate
from tuner.core.slo import SLO
from tuner.measure.client_view import ClientView
from tuner.measure.points import OperatingPoint
from tuner.measure.quality_warnings import QualityCheck, QualityWarning

LOADS: tuple[Load, ...] = (
    Concurrency(16),
    RequestRate(500),
    RequestRate(0.1, "constant"),
    Ramp(100, 1_000.5, 60),
    Ramp(100, 100, 1, "constant"),
    Replay("day.txt", (0, 5, 5, 1 << 60)),
    Replay("day.txt", (0, 5), period_ns=7),
)


@pytest.mark.parametrize("load", LOADS, ids=str)
def test_a_load_comes_back_from_disk_as_it_was(load: Load) -> None:
    before = point(load)
    again = OperatingPoint.model_validate_json(before.model_dump_json())
    assert again == before
    assert type(again.load) is type(load)
    assert again.load == load
    assert hash(again.load) == hash(load)


def test_the_warnings_of_a_study_of_an_earlier_version_are_read() -> None:
    warning = QualityWarning(check=QualityCheck.DRIFT, reason="it got slower")
    now = point().model_copy(update={"warnings": (warning,)})
    stored = now.model_dump_json().replace('"warnings"', '"doubts"').replace('"check"', '"gate"')
    assert '"gate"' in stored
    assert OperatingPoint.model_validate_json(stored) == now


def test_a_limit_holds_for_what_was_measured() -> None:
    assert point(1, 100, 10).holds(SLO({"p99": 10}))
    assert not point(1, 100, 10).holds(SLO({"p99": 9.9}))
    assert point(1, 100, 10).holds(SLO({"p50": 5.1, "p99": 10}))
    assert point(1, 100, 10).holds(SLO())


def test_a_point_is_client_bound_when_the_client_says_so() -> None:
    assert not point().client_bound
    assert point().model_copy(update={"client": ClientView(cpu=0.9, bound="it is busy")}).client_bound


def test_the_average_batch_is_the_servers() -> None:
    assert point().average_batch_size == 2
    assert point().model_copy(update={"server": None}).average_batch_size is None
