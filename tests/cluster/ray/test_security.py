"""Addresses of clusters, why they refuse, and which ones are open."""

from __future__ import annotations

import socket

import pytest

from tuner.cluster.ray.security import address_of, check_reachable, why_not_connected, why_open
from tuner.core.errors import JobError


@pytest.mark.parametrize(
    ("given", "variable", "address"),
    [
        (None, None, None),
        (None, "192.0.2.1:6379", "192.0.2.1:6379"),
        ("192.0.2.2:6379", "192.0.2.1:6379", "192.0.2.2:6379"),
        ("auto", "192.0.2.1:6379", None),
    ],
)
def test_the_option_precedes_ray_s_variable(given: str | None, variable: str | None, address: str | None) -> None:
    assert address_of(given, {"RAY_ADDRESS": variable} if variable else {}) == address


@pytest.mark.parametrize("address", ["worker", "worker:", ":6379", "worker:x", "http://worker"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(JobError, match=r"^--ray-address: '.*' is not HOST:PORT or ray://HOST:PORT$"):
        check_reachable(address)


def test_where_nothing_listens_the_fix_is_named() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(JobError, match=r"^--ray-address: cannot connect to .*: Connection refused; is the head"):
            check_reachable(address)


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_where_something_listens_ray_may_try(form: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        check_reachable(form.format(listening.getsockname()[1]))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("Unauthenticated: RPC error: InvalidAuthToken: Authentication token is missing", "it refuses the token"),
        ("no authentication token was found. Ensure", "it needs the token"),
        ("E0000 Ssl handshake failed: SSL_ERROR_SSL", "TLS fails"),
        ("RuntimeError: Version mismatch: The cluster was started with", "the cluster has another version"),
        ("Failed to connect to GCS within 60 seconds", "its head is gone"),
    ],
)
def test_what_ray_writes_is_explained(words: str, reason: str) -> None:
    assert why_not_connected(f"[date E 1 2] {words} ...").startswith(reason)


def test_what_is_not_known_is_not_explained() -> None:
    assert why_not_connected("anything else") == ""


@pytest.mark.parametrize("secured", [{"RAY_AUTH_MODE": "token"}, {"RAY_USE_TLS": "1"}])
def test_a_secured_cluster_is_not_open(secured: dict[str, str]) -> None:
    assert why_open("192.0.2.1:6379", secured) == ""


@pytest.mark.parametrize("address", ["127.0.0.1:6379", "localhost:6379", "[::1]:6379"])
def test_a_cluster_on_loopback_is_not_open(address: str) -> None:
    assert why_open(address, {}) == ""


@pytest.mark.parametrize("address", [None, "192.0.2.1:6379", "ray://head:10001"])
def test_another_cluster_is_open(address: str | None) -> None:
    assert "RAY_AUTH_MODE=token" in why_open(address, {"RAY_AUTH_MODE": "disabled", "RAY_USE_TLS": "0"})
