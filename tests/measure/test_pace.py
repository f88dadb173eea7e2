from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tuner.core.loads import Concurrency, RequestRate
from tuner.load.protocols import Samples
from tuner.measure.pace import Pace


def answered(count: int, wall_s: float, *, waiting: int = 0) -> Samples:
    times = np.linspace(0, wall_s * 1e9, count).astype(np.int64)
    return Samples(times, times, np.ones(count, bool), {}, cpu_s=0.0, wall_s=wall_s, waiting=waiting)


def test_the_deadline_grows_with_the_queue_and_falls_with_the_instances() -> None:
    one, four = Pace(7.0, 0.02), Pace(7.0, 0.02, instances=4)
    assert one.patience_s(Concurrency(512)) == pytest.approx(7 + 2 * 10.24)
    assert four.patience_s(Concurrency(512)) == pytest.approx(7 + 2 * 2.56)
    assert one.patience_s(RequestRate(200)) == 7.0


def test_what_a_request_takes_is_learnt_from_those_that_are_answered() -> None:
    pace = Pace(7.0, 10.0)  # the first answer compiled something
    pace.took(0.5)
    pace.took(3.0)
    assert pace.patience_s(Concurrency(100)) == pytest.approx(7 + 2 * 50)
    pace.saw(Concurrency(8), answered(400, 4.0))
    assert pace.patience_s(Concurrency(100)) == pytest.approx(7 + 2 * 1)
    pace.saw(Concurrency(1), answered(0, 4.0))
    assert pace.patience_s(Concurrency(100)) == pytest.approx(7 + 2 * 1)


def test_a_backlog_is_what_was_due_and_not_answered() -> None:
    pace = Pace(7.0, 0.02)
    assert pace.drained_within_s() == 7.0
    # 800 requests were due in 4 s, and 200 answered, at 50 a second: another 12 s of them.
    pace.saw(RequestRate(200), answered(200, 4.0))
    assert pace.drained_within_s() == pytest.approx(7 + 2 * 12)
    # What was never sent is no backlog of the server.
    pace.saw(RequestRate(200), answered(200, 4.0, waiting=500))
    assert pace.drained_within_s() == pytest.approx(7 + 2 * 2)
    failed = replace(answered(300, 4.0), ok=np.arange(300) < 200)
    pace.saw(RequestRate(200), failed)
    assert pace.drained_within_s() == pytest.approx(7 + 2 * 12)
    pace.saw(Concurrency(512), answered(200, 4.0))
    assert pace.drained_within_s() == pytest.approx(7 + 2 * 512 * 0.02)
