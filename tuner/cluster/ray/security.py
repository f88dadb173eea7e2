"""The address of a Ray cluster, why it cannot be reached, and whether it is open to others."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping

from tuner.core.errors import JobError

_CONNECT_S = 5.0
_CLIENT = "ray://"
_SIGNS = (
    (
        ("no authentication token was found",),
        "it needs the token of the cluster; set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH",
    ),
    (
        ("InvalidAuthToken", "Unauthenticated", "AuthenticationError"),
        "it refuses the token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's",
    ),
    (
        ("SSL_ERROR", "CERTIFICATE_VERIFY_FAILED", "Ssl handshake failed", "SSL routines"),
        "TLS fails; RAY_TLS_SERVER_CERT, RAY_TLS_SERVER_KEY and RAY_TLS_CA_CERT must be those of the cluster",
    ),
    (("Version mismatch",), "the cluster has another version of Ray or Python; install the same ones here"),
    (("Failed to connect to GCS within",), "its head is gone"),
)


def address_of(given: str | None, environment: Mapping[str, str]) -> str | None:
    """The address to connect to; None: Ray finds the cluster of this machine, and starts none."""
    address = given or environment.get("RAY_ADDRESS") or "auto"
    return None if address in {"auto", "local"} else address


def check_reachable(address: str | None) -> None:
    """Check that something listens at an address, since Ray waits long for it.

    Raises:
        JobError: nothing does, or it is no address.
    """
    if address is None:
        return
    host, port = _host_and_port(address)
    try:
        socket.create_connection((host, port), timeout=_CONNECT_S).close()
    except OSError as error:
        reason = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise JobError(
            f"--ray-address: cannot connect to {address}: {reason}; is the head running there (`ray start --head`)?"
        ) from None


def why_not_connected(words: str) -> str:
    """Why Ray does not connect, by what it wrote; empty: it does not say."""
    return next((reason for signs, reason in _SIGNS if any(sign in words for sign in signs)), "")


def why_open(address: str | None, environment: Mapping[str, str]) -> str:
    """A warning if others can use the cluster; empty: it asks for a token or a certificate, or is on loopback."""
    if environment.get("RAY_AUTH_MODE", "").lower() == "token" or environment.get("RAY_USE_TLS", "") in {"1", "true"}:
        return ""
    if address is not None and _is_loopback(_host_and_port(address)[0]):
        return ""
    return (
        "the Ray cluster is open: who reaches its ports can run programs on its hosts, and read what is sent; "
        "set RAY_AUTH_MODE=token or RAY_USE_TLS=1 on all hosts"
    )


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.removeprefix(_CLIENT).rpartition(":")
    if not host and address.startswith(_CLIENT):
        host, port = port, "10001"
    if not host or not port.isdecimal():
        raise JobError(f"--ray-address: {address!r} is not HOST:PORT or ray://HOST:PORT")
    return host.strip("[]"), int(port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
