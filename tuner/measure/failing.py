"""When a load level can not be measured, because its requests fail or are not answered at all."""

from __future__ import annotations

import numpy as np

from tuner.core.errors import Cause, ServerError, ServerHungError, TuningError
from tuner.core.loads import Concurrency, Load
from tuner.load.failures import cause_of, failed
from tuner.load.protocols import Samples
from tuner.stats.window import ends_by_itself

# Fewer failures may be the server's first stumble.
_FEWEST_FAILURES = 5


def silence_s(samples: Samples) -> float:
    """Seconds since a request was answered without error, or since the load began if none was."""
    if not samples.ok.any():
        return samples.wall_s
    # The first request may go out late, on a machine that is busy; then nothing is still for the rest of the load.
    began_ns = samples.sent_ns.min() if samples.began_ns is None else samples.began_ns
    return samples.wall_s - float(samples.done_ns[samples.ok][-1] - began_ns) / 1e9


def most_frequent_error(samples: Samples) -> str | None:
    """The error message seen most often, if any."""
    return max(samples.errors, key=lambda message: samples.errors[message], default=None)


def raise_if_failing(samples: Samples, load: Load, *, timeout_s: float) -> None:
    """Raise what is wrong with a load, if something is.

    A ramp or a recording that ends by itself is to show where a server breaks, so its end may fail.

    Args:
        samples: All of the load so far.
        load: What is offered.
        timeout_s: Deadline of a request.

    Raises:
        ServerHungError: nothing was answered for as long as a request may take.
        ServerError: more than half of the requests failed, or every one for the last two rounds and more.
    """
    failures = len(samples) - int(np.count_nonzero(samples.ok))
    error = most_frequent_error(samples)
    if not ends_by_itself(load) and _is_hung(samples, load, error, timeout_s):
        raise ServerHungError(f"no request was answered for {timeout_s:.3g} s at {load}", cause=Cause.HUNG)
    if error is None or failures < _FEWEST_FAILURES:
        return
    if not ends_by_itself(load) and _trailing_failures(samples) >= max(_FEWEST_FAILURES, 2 * _round(samples, load)):
        raise failed(f"requests fail at {load}", error)
    if 2 * failures > len(samples):
        raise _overwhelmed(f"{failures} of {len(samples)} requests failed at {load}, most with", error)


def raise_if_unanswered(samples: Samples, load: Load) -> None:
    """Raise when there is nothing to make numbers of.

    Raises:
        ServerError: no request succeeded.
        TuningError: there was none.
    """
    if not len(samples):
        raise TuningError(f"no request was due at {load}")
    if error := most_frequent_error(samples) if not samples.ok.any() else None:
        raise failed(f"no request was answered at {load}", error)


def _is_hung(samples: Samples, load: Load, error: str | None, timeout_s: float) -> bool:
    if silence_s(samples) < timeout_s:
        return False
    if isinstance(load, Concurrency):
        return error is None or cause_of(error) is Cause.HUNG
    # An open loop may have been silent because nothing was due.
    return error is not None and cause_of(error) is Cause.HUNG and _trailing_failures(samples) > 0


def _round(samples: Samples, load: Load) -> float:
    """How many requests are under way; in an open loop as a mean, by Little's law."""
    if isinstance(load, Concurrency):
        return load.requests
    return float((samples.done_ns - samples.sent_ns)[samples.ok].sum()) / 1e9 / samples.wall_s


def _trailing_failures(samples: Samples) -> int:
    answered = samples.ok.nonzero()[0]
    return len(samples) - (int(answered[-1]) + 1 if len(answered) else 0)


def _overwhelmed(what: str, error: str) -> ServerError:
    """Where other requests are answered, a deadline that is missed says that there are too many, not that it hangs."""
    if cause_of(error) is Cause.HUNG:
        return ServerError(f"{what}: {error}", cause=Cause.REQUESTS_FAILED)
    return failed(what, error)
