from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tuner.core.errors import Cause, ServerError
from tuner.options.endpoint import Endpoint
from tuner.servers import callees as module
from tuner.servers.callees import Callees, missing_model
from tuner.servers.protocols import Server

NOT_READY = (
    "the first request failed: INTERNAL: Model echo - Error when running inference: "
    "Failed for execute the inference request. Model 'echo' is not ready."
)


@pytest.mark.parametrize(
    ("message", "model"),
    [
        (NOT_READY, "echo"),
        ("NOT_FOUND: Request for unknown model: 'a b/c' is not found", "a b/c"),
        ("INTERNAL: the model says no", None),
        ("UNAVAILABLE: Request for unknown model: 'echo' version 7 is not at ready state", None),
    ],
)
def test_triton_says_which_model_is_missing(message: str, model: str | None) -> None:
    assert missing_model(message) == model


class Running:
    """A server, and what it was told to load."""

    endpoint = Endpoint("127.0.0.1:9")

    def __init__(self) -> None:
        self.loaded: list[tuple[str, str, float]] = []
        self.minded = 0

    def check(self) -> None:
        """It lives."""

    def mind_model(self) -> None:
        self.minded += 1


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Running:
    server = Running()

    class Control:
        def __init__(self, endpoint: Endpoint) -> None:
            assert endpoint == server.endpoint

        def load(self, model: str, config: str, *, within_s: float, alive: Callable[[], None]) -> None:
            alive()
            server.loaded.append((model, config, within_s))

    monkeypatch.setattr(module, "ModelControl", Control)
    return server


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("echo", "pipeline"):
        (tmp_path / name).mkdir()
    return tmp_path


def load_missing(callees: Callees, running: Running, message: str = NOT_READY) -> None:
    server: Server = running  # type: ignore[assignment]  # what is asked of it
    callees.load_missing(ServerError(message, cause=Cause.REQUESTS_FAILED), server, within_s=30)


def test_a_missing_model_is_loaded_with_its_own_config_and_said(repository: Path, running: Running) -> None:
    notes: list[str] = []
    callees = Callees("pipeline", repository, note=notes.append)
    load_missing(callees, running)
    assert running.loaded == [("echo", "", 30)]
    assert running.minded == 1
    assert callees.names == ("echo",)
    assert notes == ["loaded echo, because pipeline calls it; use --load-model echo to load it from the start"]


def test_a_model_that_is_loaded_and_still_not_ready_is_not_loaded_again(repository: Path, running: Running) -> None:
    callees = Callees("pipeline", repository, ("echo", "echo", "pipeline"))
    assert callees.names == ("echo",)
    with pytest.raises(ServerError) as raised:
        load_missing(callees, running)
    assert str(raised.value) == NOT_READY
    assert not running.loaded


@pytest.mark.parametrize("message", ["INTERNAL: no", NOT_READY.replace("echo", "pipeline")])
def test_another_failure_stays_what_it_is(repository: Path, running: Running, message: str) -> None:
    with pytest.raises(ServerError) as raised:
        load_missing(Callees("pipeline", repository), running, message)
    assert str(raised.value) == message
    assert not running.loaded


def test_a_model_that_is_nowhere_is_said_with_the_nearest(repository: Path, running: Running) -> None:
    with pytest.raises(ServerError, match="pipeline calls ecko, which is not in the repository; .*'echo'") as raised:
        load_missing(Callees("pipeline", repository), running, NOT_READY.replace("echo", "ecko"))
    assert raised.value.cause is Cause.REQUESTS_FAILED


def test_on_a_server_that_is_not_ours_nothing_is_loaded(running: Running) -> None:
    with pytest.raises(ServerError, match="; pipeline calls echo: load echo on the server"):
        load_missing(Callees("pipeline"), running)
