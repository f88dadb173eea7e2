"""Finds out why a call did not reach a Triton, by trying other protocols at its endpoint."""

from __future__ import annotations

import socket
import ssl

from tuner.core.errors import Cause, ServerDiedError, ServerError, ServerHungError
from tuner.options.endpoint import Endpoint
from tuner.options.tls import Tls

# Time-out of each try in s; there are about five, only after a failure.
_PATIENCE_S = 0.5
_NAMES = {"grpc": "gRPC", "grpcs": "gRPC over TLS", "http": "HTTP", "https": "HTTP over TLS"}
_ALPN = {"grpc": "h2", "http": "http/1.1"}
# Frame type SETTINGS, with which HTTP/2 begins on both sides.
_SETTINGS = b"\4"
_HELLO = {
    "grpc": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0" + _SETTINGS + b"\0\0\0\0\0",
    "http": b"GET /v2 HTTP/1.1\r\nhost: triton\r\nconnection: close\r\n\r\n",
}


def hung(endpoint: Endpoint, timeout_s: float) -> ServerHungError:
    """The error of a call that was not answered in time."""
    return ServerHungError(f"no answer from {endpoint.address} within {timeout_s:g} s", cause=Cause.HUNG)


def explain_failure(endpoint: Endpoint) -> ServerError:
    """The error for a call without an answer, with the fault of the endpoint.

    Returns:
        `ServerDiedError` if there is no server, or it speaks the right protocol; else another `ServerError`.
    """
    address = endpoint.address
    try:
        _connect(endpoint).close()
    except OSError as error:
        return ServerDiedError(f"no Triton answers at {address}: {error.strerror or error}", cause=Cause.CRASHED)
    asked = endpoint.url.partition(":")[0]
    schemes = [asked, *(scheme for scheme in ("grpcs", "https", "grpc", "http") if scheme != asked)]
    protocol = next((scheme for scheme in schemes if _speaks(endpoint, scheme)), asked)
    if protocol != asked:
        return misdirected(endpoint, protocol)
    if endpoint.tls and (reason := _distrust(endpoint, endpoint.tls)):
        return ServerError(reason, cause=Cause.REQUESTS_FAILED)
    return ServerDiedError(f"no Triton answers at {address}", cause=Cause.CRASHED)


def misdirected(endpoint: Endpoint, scheme: str) -> ServerError:
    """The error for an endpoint with another protocol, which is given by its URL scheme."""
    asked = endpoint.url.partition(":")[0]
    text = f"{endpoint.address} speaks {_NAMES[scheme]}, not {_NAMES[asked]}: use {scheme}://{endpoint.address}"
    return ServerError(text, cause=Cause.REQUESTS_FAILED)


def _connect(endpoint: Endpoint) -> socket.socket:
    return socket.create_connection((endpoint.host, endpoint.port), _PATIENCE_S)


def _distrust(endpoint: Endpoint, tls: Tls) -> str | None:
    """Why certificates make the TLS handshake fail; None: they do not."""
    context = tls.context(_ALPN[endpoint.protocol])
    try:
        with (
            _connect(endpoint) as plain,
            context.wrap_socket(plain, server_hostname=tls.server_name or endpoint.host) as secure,
        ):
            secure.sendall(_HELLO[endpoint.protocol])
            # The server rejects a (missing) client certificate only after the handshake.
            if secure.recv(1):
                return None
            said = "may not trust the client certificate" if tls.certificate else "may require a client certificate"
            return f"{endpoint.address} closed the connection after the TLS handshake: it {said}"
    except ssl.SSLCertVerificationError as error:
        return f"the certificate of {endpoint.address} is not trusted: {error.verify_message.rstrip('.')}"
    except ssl.SSLError as error:
        _, alert, words = (error.reason or "").rpartition("ALERT_")
        return f"{endpoint.address} refused the TLS handshake: {words.replace('_', ' ').lower()}" if alert else None
    except OSError:
        return None


def _speaks(endpoint: Endpoint, scheme: str) -> bool:
    """Whether the endpoint speaks the protocol of a URL scheme, without checking certificates."""
    protocol = scheme[:4]
    try:
        with _connect(endpoint) as plain:
            if not scheme.endswith("s"):
                return _answers(plain, protocol)
            with _trusting_all(_ALPN[protocol]).wrap_socket(plain, server_hostname=endpoint.host) as secure:
                return secure.selected_alpn_protocol() == _ALPN[protocol] or _answers(secure, protocol)
    except OSError:
        return False


def _answers(connection: socket.socket, protocol: str) -> bool:
    connection.sendall(_HELLO[protocol])
    answer = connection.recv(9)
    return answer.startswith(b"HTTP/") if protocol == "http" else answer[3:4] == _SETTINGS


def _trusting_all(protocol: str) -> ssl.SSLContext:
    """A TLS context that trusts every server; no data of ours are sent over it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    return context
