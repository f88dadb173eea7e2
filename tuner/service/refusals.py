"""Why the service refuses a request: who asks, what it may not do, and limits.

`tuner.service.errors` has what the store raises. `tuner.service.api.problems` makes responses of all of them.
"""

from __future__ import annotations

from tuner.core.errors import TritontuneError


class UnauthenticatedError(TritontuneError):
    """The request has no valid token and no valid session."""


class ForbiddenError(TritontuneError):
    """The role may not do this, or the config file of the service does not allow it."""


class StaleError(TritontuneError):
    """The resource has another version than the request expects."""


class LimitError(TritontuneError):
    """Too many at once.

    Args:
        message: One line.
        retry_after_s: When to try again, in seconds.
    """

    def __init__(self, message: str, *, retry_after_s: int = 30) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
