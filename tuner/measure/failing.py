"""When a load level can not be measured, because its requests fail or are not answered at all."""

from __future__ import annotations

import numpy as np

from tuner.errors import Cause, ServerError, ServerHungError
from tuner.load.failures import cause_of, failed
from tuner.load.protocols import Samples

# Fewer failures may be the server's first stumble.
_FEWEST_FAILURES = 5


def silence_s(samples: Samples) -> float:
    """Seconds since a request was answered without error, or since the load began if none was."""
    if not samples.ok.any():
        return samples.wall_s
    began_ns, last_ns = samples.sent_ns.min(), samples.done_ns[samples.ok][-1]
    return samples.wall_s - float(last_ns - began_ns) / 1e9


def most_frequent_error(samples: Samples) -> str | None:
    """The error message seen most often, if any."""
    return max(samples.errors, key=lambda message: samples.errors[message], default=None)


def raise_if_failing(samples: Samples, concurrency: int, *, timeout_s: float) -> None:
    """Raise what is wrong with a load, if something is.

    Args:
        samples: All of the load so far.
        concurrency: Requests under way.
        timeout_s: Deadline of a request.

    Raises:
        ServerHungError: nothing was answered for as long as a request may take.
        ServerError: more than half of the requests failed, or every one for the last two rounds and more.
    """
    where = f"at concurrency {concurrency}"
    failures = len(samples) - int(np.count_nonzero(samples.ok))
    error = most_frequent_error(samples)
    if silence_s(samples) >= timeout_s and (error is None or cause_of(error) is Cause.HUNG):
        raise ServerHungError(f"no request was answered for {timeout_s:g} s {where}", cause=Cause.HUNG)
    if error is None or failures < _FEWEST_FAILURES:
        return
    if _trailing_failures(samples) >= max(_FEWEST_FAILURES, 2 * concurrency):
        raise failed(f"requests fail {where}", error)
    if 2 * failures > len(samples):
        raise _overwhelmed(f"{failures} of {len(samples)} requests failed {where}, most with", error)


def _trailing_failures(samples: Samples) -> int:
    answered = samples.ok.nonzero()[0]
    return len(samples) - (int(answered[-1]) + 1 if len(answered) else 0)


def _overwhelmed(what: str, error: str) -> ServerError:
    """Where other requests are answered, a deadline that is missed says that there are too many, not that it hangs."""
    if cause_of(error) is Cause.HUNG:
        return ServerError(f"{what}: {error}", cause=Cause.REQUESTS_FAILED)
    return failed(what, error)
