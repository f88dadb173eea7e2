from __future__ import annotations

import pytest

from tuner.core.loads import Concurrency, Load, Ramp, Replay, RequestRate


@pytest.mark.parametrize(
    ("load", "level", "words"),
    [
        (Concurrency(8), 8, "concurrency 8"),
        (RequestRate(250.5), 250.5, "250.5 requests/s"),
        (Ramp(10, 500, 30), 500, "10 to 500 requests/s"),
        (Replay("peak.txt", (0, 500_000_000)), 4, "replay of peak.txt"),
        (Replay("peak.txt", (0, 5), period_ns=1_000_000_000), 2, "replay of peak.txt"),
    ],
)
def test_loads_have_a_level_and_a_name(load: Load, level: float, words: str) -> None:
    assert load.level == pytest.approx(level)
    assert str(load) == words
