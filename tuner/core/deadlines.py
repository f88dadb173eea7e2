"""Deadlines for a Triton server, in seconds, from what is known about the model."""

from __future__ import annotations

# For the first request to a model, which may compile or fill caches.
FIRST_ANSWER_S = 120.0

# For a launch that builds engines; TensorRT takes minutes for a large model.
SLOW_LAUNCH_S = 900.0

_FIRST_LAUNCH_S = 120.0
_SLOW_DISK_BYTES_PER_S = 50e6

# A launch hangs if it takes this many times as long as the baseline's; many instances alone do not take as long.
_LAUNCH_FACTOR = 10.0
_LAUNCH_PATIENCE_S = 30.0
# The same for a request, as a multiple of the first answer's time.
_ANSWER_FACTOR = 100.0
_ANSWER_PATIENCE_S = 5.0


def first_launch_s(size_bytes: int) -> float:
    """Deadline of the first launch of a model, by the size of its files."""
    return _FIRST_LAUNCH_S + size_bytes / _SLOW_DISK_BYTES_PER_S


def launch_s(baseline_launch_s: float) -> float:
    """Deadline of the launch of a candidate, by the seconds of the baseline's launch."""
    return _LAUNCH_PATIENCE_S + _LAUNCH_FACTOR * baseline_launch_s


# A queued request, and a backlog of requests, may take this many times as long as expected.
_QUEUE_FACTOR = 2.0
# The longest wait for a backlog. The requests that remain are distinguished from those of the next load.
_LONGEST_BACKLOG_S = 60.0


def answer_s(first_answer_s: float) -> float:
    """Deadline of a request, by the seconds of the model's first answer."""
    return _ANSWER_PATIENCE_S + _ANSWER_FACTOR * first_answer_s


def queued_s(alone_s: float, *, queue: float, service_s: float) -> float:
    """Deadline of a request that waits in a queue.

    Args:
        alone_s: Its deadline without other requests, in seconds.
        queue: Number of requests before it.
        service_s: Seconds per request with all instances busy.
    """
    return alone_s + _QUEUE_FACTOR * queue * service_s


def backlog_s(alone_s: float, *, queue: float, service_s: float) -> float:
    """Deadline of an answer after a load that has left a backlog; see `queued_s`."""
    return min(queued_s(alone_s, queue=queue, service_s=service_s), max(alone_s, _LONGEST_BACKLOG_S))
