"""Load levels that cannot be measured, because requests fail or are not answered."""

from __future__ import annotations

import numpy as np

from tuner.core.errors import Cause, ServerError, ServerHungError, TuningError
from tuner.core.loads import Concurrency, Load
from tuner.load.failures import cause_of, failed
from tuner.load.protocols import Samples
from tuner.stats.window import ends_by_itself

# Fewer failures may be a start-up effect.
_FEWEST_FAILURES = 5


def silence_s(samples: Samples) -> float:
    """Seconds since the last successful answer, or since the load began if there is none."""
    if not samples.ok.any():
        return samples.wall_s
    # On a busy machine, the first request may be sent late.
    began_ns = samples.sent_ns.min() if samples.began_ns is None else samples.began_ns
    return samples.wall_s - float(samples.done_ns[samples.ok][-1] - began_ns) / 1e9


def most_frequent_error(samples: Samples) -> str | None:
    """The most frequent error message, if any."""
    return max(samples.errors, key=lambda message: samples.errors[message], default=None)


def raise_if_failing(samples: Samples, load: Load, *, timeout_s: float) -> None:
    """Raise an error if the server hangs, or too many requests fail.

    Exception: the last requests of a ramp, or of a recording that ends, may fail, as they show the server's limit.

    Args:
        samples: All samples of the load so far.
        load: The load that is offered.
        timeout_s: Deadline of a request, in seconds.

    Raises:
        ServerHungError: no request was answered for `timeout_s` seconds.
        ServerError: more than half of the requests failed, or all requests of the last two rounds. (A round is as many
            as are under way.)
    """
    failures = len(samples) - int(np.count_nonzero(samples.ok))
    error = most_frequent_error(samples)
    if not ends_by_itself(load) and _is_hung(samples, load, error, timeout_s):
        raise ServerHungError(f"no request was answered for {timeout_s:.3g} s at {load}", cause=Cause.HUNG)
    if error is None or failures < _FEWEST_FAILURES:
        return
    if not ends_by_itself(load) and _trailing_failures(samples) >= max(_FEWEST_FAILURES, 2 * _round(samples, load)):
        raise failed(f"all recent requests failed at {load}", error)
    if 2 * failures > len(samples):
        raise _overwhelmed(f"{failures} of {len(samples)} requests failed at {load}, most often with", error)


def raise_if_unanswered(samples: Samples, load: Load) -> None:
    """Raise an error if no request succeeded.

    Raises:
        ServerError: all requests failed.
        TuningError: the load had no request.
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
    # In an open loop, perhaps nothing was due.
    return error is not None and cause_of(error) is Cause.HUNG and _trailing_failures(samples) > 0


def _round(samples: Samples, load: Load) -> float:
    """Requests under way: the concurrency; in an open loop the mean, by Little's law."""
    if isinstance(load, Concurrency):
        return load.requests
    return float((samples.done_ns - samples.sent_ns)[samples.ok].sum()) / 1e9 / samples.wall_s


def _trailing_failures(samples: Samples) -> int:
    answered = samples.ok.nonzero()[0]
    return len(samples) - (int(answered[-1]) + 1 if len(answered) else 0)


def _overwhelmed(what: str, error: str) -> ServerError:
    """The error for too many failures. While other requests succeed, missed deadlines mean overload, not a hang."""
    if cause_of(error) is Cause.HUNG:
        return ServerError(f"{what}: {error}", cause=Cause.REQUESTS_FAILED)
    return failed(what, error)
