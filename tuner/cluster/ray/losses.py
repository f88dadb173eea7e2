"""Why the actor of a slot is lost, in words."""

from __future__ import annotations

from ray import exceptions

_MEMORY = "its host ran low on memory, and Ray ended the worker"
_NODE = "its host is gone: Ray has lost the node"
_WORKER = "its Ray worker died"
_WORDS = (
    ("running low on memory", _MEMORY),
    ("node has died", _NODE),
    ("node was terminated", _NODE),
    ("node failure", _NODE),
    ("worker process has died", _WORKER),
)

_KINDS = (
    (exceptions.OutOfMemoryError, _MEMORY),
    (exceptions.NodeDiedError, _NODE),
    (exceptions.WorkerCrashedError, _WORKER),
    (exceptions.ActorUnavailableError, "its host cannot be reached any more"),
)


def reason_of(error: Exception, *, silent_s: float) -> str:
    """Why a call failed, in words.

    Args:
        error: What `ray.get` raised.
        silent_s: The seconds that it waited.
    """
    if isinstance(error, exceptions.GetTimeoutError):
        return f"its host has not answered for {silent_s:.0f} s"
    text = " ".join(str(error).split())
    by_kind = next((words for kind, words in _KINDS if isinstance(error, kind)), None)
    return (
        by_kind
        or next((words for sign, words in _WORDS if sign in text), None)
        or f"its Ray actor failed: {type(error).__name__}: {text[:200]}"
    )
