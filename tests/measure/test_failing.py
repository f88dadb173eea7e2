from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tuner.errors import Cause, ServerError, ServerHungError
from tuner.load.protocols import Samples
from tuner.measure.failing import most_frequent_error, raise_if_failing, silence_s

OK = ""
DEADLINE = "DEADLINE_EXCEEDED: Deadline Exceeded"


def samples(*outcomes: str, wall_s: float = 1.0, every_s: float = 0.01) -> Samples:
    """Requests that end at equal distance, with these errors or none."""
    done_ns = (np.arange(1, len(outcomes) + 1) * every_s * 1e9).astype(np.int64)
    errors = Counter(outcome for outcome in outcomes if outcome)
    ok = np.array([outcome == OK for outcome in outcomes], dtype=np.bool_)
    return Samples(done_ns - int(every_s * 1e9), done_ns, ok, errors, 0.1, wall_s)


def raised(seen: Samples, concurrency: int = 1) -> ServerError:
    with pytest.raises(ServerError) as error:
        raise_if_failing(seen, concurrency, timeout_s=10)
    assert "\n" not in str(error.value)
    return error.value


def test_all_is_well_when_requests_are_answered() -> None:
    raise_if_failing(samples(*[OK] * 20), 4, timeout_s=10)


def test_all_is_well_at_the_beginning() -> None:
    raise_if_failing(samples(wall_s=0.1), 4, timeout_s=10)


def test_fewer_failures_than_half_are_no_failure() -> None:
    raise_if_failing(samples(*["INTERNAL: no", OK, OK] * 20), 1, timeout_s=10)


def test_more_than_half_are_and_the_most_frequent_error_is_told() -> None:
    error = raised(samples(*["INTERNAL: no", OK, "INTERNAL: no", "UNKNOWN: what"] * 5))
    assert str(error) == "15 of 20 requests failed at concurrency 1, most with: INTERNAL: no"
    assert error.cause is Cause.REQUESTS_FAILED


def test_a_few_first_failures_are_waited_out() -> None:
    raise_if_failing(samples("INTERNAL: no", "INTERNAL: no"), 1, timeout_s=10)


def test_requests_that_all_fail_from_some_moment_on_are_a_failure() -> None:
    error = raised(samples(*[OK] * 500, *["INTERNAL: Stub process 'm_0_0' is not healthy."] * 8), concurrency=4)
    assert str(error) == "requests fail at concurrency 4: INTERNAL: Stub process 'm_0_0' is not healthy."
    assert error.cause is Cause.CRASHED


def test_a_row_of_failures_shorter_than_two_rounds_is_not() -> None:
    raise_if_failing(samples(*[OK] * 500, *["INTERNAL: no"] * 7), 4, timeout_s=10)


@pytest.mark.parametrize("outcomes", [(), (DEADLINE,) * 4, (OK,) * 50, (OK, OK, DEADLINE)])
def test_silence_for_as_long_as_a_request_may_take_is_a_hang(outcomes: tuple[str, ...]) -> None:
    error = raised(samples(*outcomes, wall_s=10.6), concurrency=4)
    assert isinstance(error, ServerHungError)
    assert str(error) == "no request was answered for 10 s at concurrency 4"
    assert error.cause is Cause.HUNG


def test_deadlines_missed_under_too_much_load_are_no_hang() -> None:
    error = raised(samples(*[DEADLINE, DEADLINE, OK] * 20), concurrency=4)
    assert error.cause is Cause.REQUESTS_FAILED
    assert not isinstance(error, ServerHungError)


def test_silence_counts_from_the_last_answer() -> None:
    assert silence_s(samples(OK, OK, "INTERNAL: no", wall_s=1.0)) == pytest.approx(0.98)
    assert silence_s(samples("INTERNAL: no", wall_s=1.0)) == pytest.approx(1.0)
    assert silence_s(samples(wall_s=0.3)) == pytest.approx(0.3)


def test_the_most_frequent_error() -> None:
    assert most_frequent_error(samples("A: 1", "B: 2", "B: 2", OK)) == "B: 2"
    assert most_frequent_error(samples(OK)) is None
