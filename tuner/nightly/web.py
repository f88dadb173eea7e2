"""Sends JSON to web addresses, within a deadline."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from tuner.core.json_text import json_text
from tuner.nightly.secrets import shown

_WITHIN_S = 10.0
_TRIES, _PAUSE_S = 3, 1.0
# Status codes of temporary failures, after which a request is repeated.
_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})


class WebError(Exception):
    """A request failed; the message shows the address without its secrets."""


def post(url: str, body: Any, *, pause_s: float = _PAUSE_S) -> None:
    """Send JSON by POST; after a temporary failure, up to three times.

    Args:
        url: The address; proxies are taken from the environment.
        body: The JSON data.
        pause_s: Pause before the second try, in seconds; twice that before the third.

    Raises:
        WebError: the server did not accept it.
    """
    asyncio.run(_post(url, json_text(body), pause_s))


def check_reachable(url: str) -> None:
    """Check that a server answers a HEAD request, with any status.

    Raises:
        WebError: there is no answer.
    """
    asyncio.run(_ask(url, "HEAD", None))


async def _post(url: str, body: str, pause_s: float) -> None:
    for attempt in range(_TRIES):
        last = attempt == _TRIES - 1
        try:
            status = await _ask(url, "POST", body)
        except WebError:
            if last:
                raise
        else:
            if status < 300:
                return
            if status < 400:
                # Following it would send the report to an address that the user did not give.
                raise WebError(f"{shown(url)} answers with status {status}, a redirect; give the address it leads to")
            if last or status not in _TEMPORARY:
                raise WebError(f"{shown(url)} answers with status {status}")
        await asyncio.sleep(pause_s * 2**attempt)


async def _ask(url: str, verb: str, body: str | None) -> int:
    deadline = aiohttp.ClientTimeout(total=_WITHIN_S)
    headers = {"Content-Type": "application/json"} if body is not None else {}
    try:
        async with (
            aiohttp.ClientSession(timeout=deadline, trust_env=True) as session,
            session.request(verb, url, data=body, headers=headers, allow_redirects=False) as answer,
        ):
            return answer.status
    except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as error:
        reason = "no answer in time" if isinstance(error, asyncio.TimeoutError) else _reason(error)
        raise WebError(f"{shown(url)} cannot be reached: {reason}") from None


def _reason(error: Exception) -> str:
    """The cause without the address, which most messages of the library include."""
    cause = getattr(error, "os_error", None) or error
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return type(error).__name__
