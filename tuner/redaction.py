"""Leaves out what may be secret, of texts that others will read."""

from __future__ import annotations

import re

HIDDEN = "***"

# `--http-restricted-api=inference:admin-key=SECRET`, `password=SECRET`, `"token": "SECRET"`.
_NAMES = (
    r"pass(?:word|wd|phrase)?|secret|token|credential|api[-_]?key|access[-_]?key|private[-_]?key|auth|bearer|restricted"
)
_NAMED = re.compile(
    rf"(?P<name>[\w.-]*(?:{_NAMES})[\w.-]*[\"']?\s*[=:]\s*)(?P<value>\"[^\"]*\"|'[^']*'|[^\s,;}}]+)", re.IGNORECASE
)
_USER = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def without_secrets(text: str) -> str:
    """A text in which the values of what is named like a secret, and users of URLs, are starred out."""
    return _USER.sub(HIDDEN, _NAMED.sub(rf"\g<name>{HIDDEN}", text))
