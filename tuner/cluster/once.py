"""Messages for the user that several slots or hosts tell alike."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Once:
    """Passes on each message once, from any thread.

    Args:
        note: Takes the messages.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._lock = threading.Lock()
        self._told: set[str] = set()

    def __call__(self, text: str) -> None:
        """Pass on a message, unless it was passed on before."""
        with self._lock:
            is_new = text not in self._told
            self._told.add(text)
        if is_new:
            self._note(text)
