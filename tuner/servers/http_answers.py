"""Error messages in Triton's HTTP answers."""

from __future__ import annotations

import json


def own_words(body: bytes) -> str | None:
    """The message of Triton's `{"error": message}`, in one line; None: another kind of body."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    words = answer.get("error") if isinstance(answer, dict) else None
    return " ".join(words.split()) if isinstance(words, str) else None
