"""How long to wait for a Triton, in seconds: by what is known of the model, and never without end."""

from __future__ import annotations

# The first request to a model of which nothing is known: it may compile, or fill caches.
FIRST_ANSWER_S = 120.0

_FIRST_LAUNCH_S = 120.0
_SLOW_DISK_BYTES_PER_S = 50e6

# A launch that takes so much longer than the baseline's is not slow, even with many more instances: it hangs.
_LAUNCH_FACTOR = 10.0
_LAUNCH_PATIENCE_S = 30.0
# The same of a request, against the first one.
_ANSWER_FACTOR = 100.0
_ANSWER_PATIENCE_S = 5.0


def first_launch_s(size_bytes: int) -> float:
    """For the first launch of a model, of which only the size is known."""
    return _FIRST_LAUNCH_S + size_bytes / _SLOW_DISK_BYTES_PER_S


def launch_s(baseline_launch_s: float) -> float:
    """For the launch of a candidate, by what the baseline's took."""
    return _LAUNCH_PATIENCE_S + _LAUNCH_FACTOR * baseline_launch_s


# How many times as long as is expected a request may wait for those before it, and a backlog may take to be answered;
_QUEUE_FACTOR = 2.0
# the latter no longer than this: what is not waited for is told apart from the next load.
_LONGEST_BACKLOG_S = 60.0


def answer_s(first_answer_s: float) -> float:
    """For a request, by what the model's first answer took."""
    return _ANSWER_PATIENCE_S + _ANSWER_FACTOR * first_answer_s


def queued_s(alone_s: float, *, queue: float, service_s: float) -> float:
    """For a request behind others.

    Args:
        alone_s: Its deadline where it is alone.
        queue: How many requests are before it.
        service_s: Seconds that the server takes for each, all of its instances together.
    """
    return alone_s + _QUEUE_FACTOR * queue * service_s


def backlog_s(alone_s: float, *, queue: float, service_s: float) -> float:
    """For an answer after a load that has left a backlog; see `queued_s`."""
    return min(queued_s(alone_s, queue=queue, service_s=service_s), max(alone_s, _LONGEST_BACKLOG_S))
