from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tuner.core.errors import Cause, ServerError, ServerHungError, TuningError
from tuner.core.loads import Concurrency, Load, Ramp, Replay, RequestRate
from tuner.load.protocols import Samples
from tuner.measure.failing import most_frequent_error, raise_if_failing, raise_if_unanswered, silence_s

OK = ""
DEADLINE = "DEADLINE_EXCEEDED: Deadline Exceeded"


def samples(*outcomes: str, wall_s: float = 1.0, every_s: float = 0.01) -> Samples:
    """Requests that end at equal distance, with these errors or none."""
    done_ns = (np.arange(1, len(outcomes) + 1) * every_s * 1e9).astype(np.int64)
    errors = Counter(outcome for outcome in outcomes if outcome)
    ok = np.array([outcome == OK for outcome in outcomes], dtype=np.bool_)
    return Samples(done_ns - int(every_s * 1e9), done_ns, ok, errors, 0.1, wall_s)


def raised(seen: Samples, load: Load = Concurrency(1)) -> ServerError:  # noqa: B008 (frozen)
    with pytest.raises(ServerError) as error:
        raise_if_failing(seen, load, timeout_s=10)
    assert "\n" not in str(error.value)
    return error.value


def test_all_is_well_when_requests_are_answered() -> None:
    raise_if_failing(samples(*[OK] * 20), Concurrency(4), timeout_s=10)


def test_a_first_request_that_goes_out_late_is_no_silence_for_ever_after() -> None:
    late = samples(*[OK] * 20, wall_s=5.0)
    assert silence_s(replace(late, began_ns=int(late.done_ns[-1] - 4.9e9))) == pytest.approx(0.1)


def test_all_is_well_at_the_beginning() -> None:
    raise_if_failing(samples(wall_s=0.1), Concurrency(4), timeout_s=10)


def test_fewer_failures_than_half_are_no_failure() -> None:
    raise_if_failing(samples(*["INTERNAL: no", OK, OK] * 20), Concurrency(1), timeout_s=10)


def test_more_than_half_are_and_the_most_frequent_error_is_told() -> None:
    error = raised(samples(*["INTERNAL: no", OK, "INTERNAL: no", "UNKNOWN: what"] * 5))
    assert str(error) == "15 of 20 requests failed at concurrency 1, most often with: INTERNAL: no"
    assert error.cause is Cause.REQUESTS_FAILED


def test_a_few_first_failures_are_waited_out() -> None:
    raise_if_failing(samples("INTERNAL: no", "INTERNAL: no"), Concurrency(1), timeout_s=10)


def test_requests_that_all_fail_from_some_moment_on_are_a_failure() -> None:
    error = raised(samples(*[OK] * 500, *["INTERNAL: Stub process 'm_0_0' is not healthy."] * 8), load=Concurrency(4))
    assert str(error) == "all recent requests failed at concurrency 4: INTERNAL: Stub process 'm_0_0' is not healthy."
    assert error.cause is Cause.CRASHED


def test_a_row_of_failures_shorter_than_two_rounds_is_not() -> None:
    raise_if_failing(samples(*[OK] * 500, *["INTERNAL: no"] * 7), Concurrency(4), timeout_s=10)


@pytest.mark.parametrize("outcomes", [(), (DEADLINE,) * 4, (OK,) * 50, (OK, OK, DEADLINE)])
def test_silence_for_as_long_as_a_request_may_take_is_a_hang(outcomes: tuple[str, ...]) -> None:
    error = raised(samples(*outcomes, wall_s=10.6), load=Concurrency(4))
    assert isinstance(error, ServerHungError)
    assert str(error) == "no request was answered for 10 s at concurrency 4"
    assert error.cause is Cause.HUNG


def test_deadlines_missed_under_too_much_load_are_no_hang() -> None:
    error = raised(samples(*[DEADLINE, DEADLINE, OK] * 20), load=Concurrency(4))
    assert error.cause is Cause.REQUESTS_FAILED
    assert not isinstance(error, ServerHungError)


def test_silence_counts_from_the_last_answer() -> None:
    assert silence_s(samples(OK, OK, "INTERNAL: no", wall_s=1.0)) == pytest.approx(0.98)
    assert silence_s(samples("INTERNAL: no", wall_s=1.0)) == pytest.approx(1.0)
    assert silence_s(samples(wall_s=0.3)) == pytest.approx(0.3)


def test_the_most_frequent_error() -> None:
    assert most_frequent_error(samples("A: 1", "B: 2", "B: 2", OK)) == "B: 2"
    assert most_frequent_error(samples(OK)) is None


def test_an_open_loop_that_is_silent_because_nothing_is_due_does_not_hang() -> None:
    raise_if_failing(samples(OK, OK, wall_s=20), RequestRate(0.05), timeout_s=10)
    raise_if_failing(samples(OK, DEADLINE, OK, wall_s=20), RequestRate(0.05), timeout_s=10)
    assert isinstance(raised(samples(OK, DEADLINE, wall_s=20), RequestRate(0.05)), ServerHungError)


def test_a_round_of_an_open_loop_is_what_is_under_way_on_average() -> None:
    # Of 100 requests a second that take 40 ms each, 4 are under way.
    failing = samples(*[OK] * 400, *["INTERNAL: no"] * 7, wall_s=4.07)
    slow = replace(failing, sent_ns=failing.done_ns - 40_000_000)
    raise_if_failing(slow, RequestRate(100), timeout_s=10)
    assert "all recent requests failed at 100 requests/s" in str(raised(failing, RequestRate(100)))


@pytest.mark.parametrize("load", [Ramp(10, 200, 5), Replay("day", (0, 1))])
def test_what_ends_by_itself_may_fail_in_the_end(load: Load) -> None:
    raise_if_failing(samples(*[OK] * 500, *[DEADLINE] * 400, wall_s=30), load, timeout_s=10)
    assert "of 900 requests failed at" in str(raised(samples(*[OK] * 400, *[DEADLINE] * 500), load))


def test_nothing_to_make_numbers_of() -> None:
    raise_if_unanswered(samples("INTERNAL: no", OK), Concurrency(1))
    with pytest.raises(ServerError, match="no request was answered at replay of day: INTERNAL: no"):
        raise_if_unanswered(samples("INTERNAL: no"), Replay("day", (0,)))
    with pytest.raises(TuningError, match=r"no request was due at 0.1 to 0.2 requests/s"):
        raise_if_unanswered(samples(), Ramp(0.1, 0.2, 1))
