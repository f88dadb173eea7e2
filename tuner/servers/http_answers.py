"""What a Triton answers over HTTP, where a part of it means the same to all who ask."""

from __future__ import annotations

import json


def own_words(body: bytes) -> str | None:
    """The message of a Triton's `{"error": message}`, in one line; None: it is no such thing."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    words = answer.get("error") if isinstance(answer, dict) else None
    return " ".join(words.split()) if isinstance(words, str) else None
