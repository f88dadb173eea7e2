from __future__ import annotations

import io

import numpy as np
from rich.console import Console

from tuner.core.loads import Concurrency
from tuner.load.protocols import Samples
from tuner.report.live_line import LiveLine, live_words


def samples(count: int, *, failed: int = 0, wall_s: float = 2.04) -> Samples:
    """One every ms, each of 2 ms; the last ones failed."""
    done_ns = np.arange(1, count + 1) * 1_000_000 + 5_000_000
    return Samples(
        sent_ns=done_ns - 2_000_000,
        done_ns=done_ns,
        ok=np.arange(count) < count - failed,
        errors={"INTERNAL: no": failed} if failed else {},
        cpu_s=0.1,
        wall_s=wall_s,
    )


def test_the_latest_requests_are_told() -> None:
    told = live_words(Concurrency(2), samples(10_000), 1)
    assert told == "concurrency 2, 2.0 s: 1,000 inferences/s, p50 2 ms, p99 2 ms"


def test_the_percentile_of_the_slo_is_told() -> None:
    assert live_words(Concurrency(2), samples(10_000), 1, "p90").endswith("p50 2 ms, p90 2 ms")
    assert live_words(Concurrency(2), samples(10_000), 1, "p50").endswith(" inferences/s, p50 2 ms")


def test_inferences_are_counted_and_failures_are_not() -> None:
    told = live_words(Concurrency(2), samples(4_000, failed=1), 4)
    assert told == "concurrency 2, 2.0 s: 3,999 inferences/s, p50 2 ms, p99 2 ms, 1 error"


def test_nothing_yet() -> None:
    assert live_words(Concurrency(1), samples(0), 1) == "concurrency 1, 2.0 s: no answers yet"
    assert live_words(Concurrency(1), samples(3, failed=3), 1).endswith("no answers yet, 3 errors")


def test_a_terminal_shows_it_and_a_file_does_not() -> None:
    for terminal in (True, False):
        text = io.StringIO()
        with LiveLine(Console(file=text, force_terminal=terminal, width=100), 1) as line:
            line.see(Concurrency(3), samples(100))
        assert ("concurrency 3" in text.getvalue()) is terminal
