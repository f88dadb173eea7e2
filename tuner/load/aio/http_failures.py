"""Errors of requests over HTTP, in one line."""

from __future__ import annotations

import os
import ssl
from typing import Final

import aiohttp

from tuner.load.failures import describe
from tuner.options.endpoint import Endpoint

FAILURES: Final = (aiohttp.ClientError, OSError)
"""The exceptions that aiohttp raises for failed requests."""


def explain(endpoint: Endpoint, error: Exception) -> str:
    """One of `FAILURES` as `CODE: message`."""
    if isinstance(error, aiohttp.ClientResponseError):
        # The rest of the message quotes bytes.
        return describe("INTERNAL", f"not an HTTP response: {error.message.partition(':')[0]}")
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = _reason(error.certificate_error)
        what = f"cannot connect to {endpoint.address}: certificate not trusted: {reason}"
    elif isinstance(error, aiohttp.ClientConnectorError):
        what = f"cannot connect to {endpoint.address}: {_reason(error.os_error)}"
    elif isinstance(error, aiohttp.ServerDisconnectedError):
        what = "the server closed the connection without an answer"
    elif isinstance(error, aiohttp.ClientPayloadError):
        what = "the connection ended in the middle of an answer"
    else:
        what = f"connection lost: {_reason(error.__cause__ or error)}"
    return describe("UNAVAILABLE", what)


def _reason(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number and number > 0 else str(error) or "the server closed it"
