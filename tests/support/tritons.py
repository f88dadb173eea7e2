"""Tritons as no launcher starts them: with HTTP, or with TLS. The launchers own both ends, and need neither."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import pytest
from _pytest.mark import ParameterSet
from support.certificates import Certificates
from support.tls_proxy import tls_proxy

from tuner.core.errors import ServerError
from tuner.options.endpoint import Endpoint
from tuner.servers.client import TritonClient
from tuner.servers.installation import TritonInstallation
from tuner.servers.process import ProcessLauncher
from tuner.servers.protocols import Launch, Server


def on_fake_server(*values: object) -> ParameterSet:
    """The parameters of a test whose first one is the fixture `installation`: there, that of the fake Triton."""
    return pytest.param("fake_triton", *values)


def on_real_server(*values: object) -> ParameterSet:
    """The same with that of a real one."""
    return pytest.param("triton_installation", *values, marks=pytest.mark.triton)


@dataclass(frozen=True)
class TwoPorts:
    """A Triton that speaks gRPC and HTTP."""

    server: Server
    grpc: Endpoint
    http: Endpoint


def start_with_http(installation: TritonInstallation, launch: Launch, *more: str) -> TwoPorts:
    """Start one, perhaps with more arguments; it is ready on both ports. Who calls stops it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        http = Endpoint(f"127.0.0.1:{probe.getsockname()[1]}", "http")
    arguments = ("--allow-http=true", "--http-address=127.0.0.1", f"--http-port={http.port}", *more)
    server = ProcessLauncher(installation, arguments).launch(launch)
    try:
        # Triton opens it last.
        _await_ready(server, http, launch)
    except BaseException:
        server.stop(grace_s=0)
        raise
    return TwoPorts(server, server.endpoint, http)


@contextmanager
def grpcs_triton(
    installation: TritonInstallation, launch: Launch, certificates: Certificates, *, mutual: bool = False
) -> Iterator[Endpoint]:
    """One that speaks gRPC over TLS.

    Args:
        installation: Which Triton.
        launch: What it serves.
        certificates: Its own, and whom it trusts.
        mutual: Whether it asks for a client's certificate.

    Yields:
        How it is reached.
    """
    server = ProcessLauncher(installation, certificates.triton_arguments(mutual=mutual))._start(launch)
    try:
        endpoint = replace(server.endpoint, tls=certificates.mutual if mutual else certificates.trusting)
        _await_ready(server, endpoint, launch)
        yield endpoint
    finally:
        server.stop(grace_s=0.5)


@contextmanager
def https_triton(
    installation: TritonInstallation, launch: Launch, certificates: Certificates, *, mutual: bool = False
) -> Iterator[Endpoint]:
    """One behind a proxy that speaks HTTP over TLS, which Triton itself does not; see `grpcs_triton`."""
    ports = start_with_http(installation, launch)
    with ports.server, tls_proxy(ports.http.address, certificates.serving(mutual=mutual)) as address:
        yield Endpoint(address, "http", certificates.mutual if mutual else certificates.trusting)


def _await_ready(server: Server, endpoint: Endpoint, launch: Launch) -> None:
    deadline = time.monotonic() + launch.deadline_s
    while not _is_ready(endpoint, launch.model):
        server.check()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _is_ready(endpoint: Endpoint, model: str) -> bool:
    with TritonClient(endpoint, timeout_s=1) as client, suppress(ServerError):
        return client.is_model_ready(model)
    return False
