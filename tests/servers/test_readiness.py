from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest

from tuner.core.errors import Cause, LaunchError, ServerError
from tuner.options.endpoint import Endpoint
from tuner.servers import readiness
from tuner.servers.client import ServerInfo

Serve = Callable[..., Any]


class _Client:
    """Of a server that has its model ready, or answers with an error."""

    def __init__(self, error: ServerError | None) -> None:
        self._error = error

    def __enter__(self) -> _Client:  # noqa: PYI034 (nobody subclasses it)
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def server(self) -> ServerInfo:
        if self._error:
            raise self._error
        return ServerInfo("mark", "2.51.0", ())

    def is_model_ready(self, _model: str) -> bool:
        return True


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    def make(address: str, error: ServerError | None = None) -> Any:
        monkeypatch.setattr(readiness, "TritonClient", lambda *_, **__: _Client(error))
        return SimpleNamespace(endpoint=Endpoint(address), mark="mark", model="m")

    return make


@pytest.mark.parametrize(("family", "host", "form"), [
    (socket.AF_INET, "127.0.0.1", "127.0.0.1:{}"), (socket.AF_INET6, "::1", "[::1]:{}"),
])  # fmt: skip
def test_a_server_is_found_at_addresses_of_both_kinds(
    family: socket.AddressFamily, host: str, form: str, serve: Serve
) -> None:
    with closing(socket.socket(family, socket.SOCK_STREAM)) as listener:
        try:
            listener.bind((host, 0))
        except OSError as error:
            pytest.skip(f"this machine has no {host}: {error.strerror}")
        listener.listen()
        address = form.format(listener.getsockname()[1])
        assert readiness._is_ready(serve(address))
    assert not readiness._is_ready(serve(address))


def test_what_answers_nobody_without_a_header_is_told_at_once(serve: Serve) -> None:
    refused = ServerError("This protocol is restricted, expecting header 'x-key'", cause=Cause.REQUESTS_FAILED)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        server = serve(f"127.0.0.1:{listener.getsockname()[1]}", refused)
        with pytest.raises(LaunchError, match=r"expecting header 'x-key'; set it by --header NAME:VALUE$"):
            readiness._is_ready(server)


def test_other_errors_are_waited_out(serve: Serve) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        error = ServerError("not yet", cause=Cause.REQUESTS_FAILED)
        assert not readiness._is_ready(serve(f"127.0.0.1:{listener.getsockname()[1]}", error))
