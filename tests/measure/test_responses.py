from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.closed_loop import samples_of

from tuner.load.protocols import Responses, Samples
from tuner.measure.responses import response_times
from tuner.stats.window import Window, whole_window


def streamed(counts: list[int], gaps_ms: list[float]) -> Samples:
    """Requests 100 ms apart, whose first response comes after 20 ms and their last after 80."""
    sent_ms = [100.0 * number for number in range(len(counts))]
    made = samples_of(sent_ms, [sent + 80 for sent in sent_ms], len(counts) / 10)
    first_ns = made.sent_ns + 20_000_000
    gap_us = np.array(np.array(gaps_ms) * 1e3, dtype=np.uint32)
    return replace(made, responses=Responses(first_ns, np.array(counts, dtype=np.int32), gap_us))


def test_a_model_with_one_response_to_a_request_has_none_of_this() -> None:
    samples = samples_of([0, 1], [2, 3], 0.01)
    assert response_times(samples, whole_window(samples), 100) is None


def test_the_responses_of_a_stream() -> None:
    samples = streamed([4] * 50, [10.0, 20.0, 30.0] * 50)
    found = response_times(samples, whole_window(samples), 10)
    assert found is not None
    assert (found.per_request, found.per_s) == (4, 40)
    assert found.time_to_first_ms["p50"].value == pytest.approx(20)
    assert found.time_to_first_ms["p99"].value == pytest.approx(20)
    assert found.inter_response_ms["p50"] == pytest.approx(20)
    assert found.inter_response_ms["p99"] == pytest.approx(30)


def test_requests_without_a_response_have_no_first() -> None:
    samples = streamed([2, 0] * 20, [5.0] * 20)
    assert samples.responses is not None
    late = np.where(samples.responses.count == 0, samples.done_ns, samples.responses.first_ns)
    found = response_times(
        replace(samples, responses=replace(samples.responses, first_ns=late)), whole_window(samples), 10
    )
    assert found is not None
    assert found.per_request == 1
    assert found.time_to_first_ms["p99"].value == pytest.approx(20)


def test_what_never_happened_is_left_out() -> None:
    samples = streamed([0] * 20, [])
    found = response_times(samples, whole_window(samples), 10)
    assert found is not None
    assert (found.time_to_first_ms, found.inter_response_ms, found.per_request) == ({}, {}, 0)


def test_failures_and_warm_up_do_not_count() -> None:
    samples = streamed([9] * 10 + [3] * 20, [5.0])
    ok = np.arange(30) % 2 == 0
    later = Window(int(samples.done_ns[9]), samples.done_ns[10:][ok[10:]], np.full(10, 80.0))
    counts = np.where(ok, [9] * 10 + [3] * 20, 1).astype(np.int32)
    assert samples.responses is not None
    seen = replace(samples, ok=ok, responses=replace(samples.responses, count=counts))
    found = response_times(seen, later, 10)
    assert found is not None
    assert found.per_request == 3
