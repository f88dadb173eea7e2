"""What is shown once: the secret of a new token, on the page after the form."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from secrets import token_urlsafe

from tuner.client.resources import NewToken

_KEPT = timedelta(minutes=2)
_MOST = 100


class ShownOnce:
    """Keeps new tokens in memory until their page is shown, for at most two minutes.

    Args:
        clock: The time, UTC.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[str, NewToken, datetime]] = {}

    def keep(self, by: str, token: NewToken) -> str:
        """Keep a new token; the result names it in the address of its page.

        Args:
            by: Id of the token that made it: nobody else sees the new one.
            token: The new token.
        """
        key, now = token_urlsafe(16), self._clock()
        with self._lock:
            valid = {key: entry for key, entry in self._kept.items() if entry[2] > now}
            self._kept = {**dict(list(valid.items())[-_MOST:]), key: (by, token, now + _KEPT)}
        return key

    def take(self, by: str, key: str) -> NewToken | None:
        """The token, the first time that who made it asks; None: it was shown, or is not there."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is None or kept[0] != by:
                return None
            del self._kept[key]
        return kept[1] if kept[2] > self._clock() else None
