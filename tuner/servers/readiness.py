"""Waits until a started server has its model ready, and detects at once if that cannot happen."""

from __future__ import annotations

import socket
import time

from tuner.core.errors import Cause, LaunchError, ServerDiedError, ServerError
from tuner.core.quantities import format_duration
from tuner.servers.client import TritonClient
from tuner.servers.server import End, TritonServer
from tuner.servers.triton_log import find_reason, gave_up, last_words, port_taken, read_log

_LOOK_S = 0.01
_ASK_S = 0.5
# In s. Triton notices a stub that dies late within about 2 s, but waits for ever for a stub that died early.
_STUBS_EVERY_S = 0.5
_STUB_DEAD_FOR_S = 3.0
# Triton's only message about a stub that ended in `initialize`, crashed or killed.
_ENDED_UNSEEN = "is not healthy"
# Triton's message for a request without the header of --grpc-restricted-protocol.
_RESTRICTED = "is restricted, expecting header"


class PortTakenError(Exception):
    """Another program took the port before Triton bound it."""


def await_ready(server: TritonServer, *, deadline: float, allowed_s: float) -> None:
    """Return once the model is ready.

    Args:
        server: The server, just started.
        deadline: When to give up (`time.monotonic`).
        allowed_s: The whole time allowed in seconds, for the message.

    Raises:
        LaunchError: the model cannot become ready, or was not ready in time.
        PortTakenError: the port was taken; try another one.
    """
    dead_stubs = _DeadStubs(server)
    while not _is_ready(server):
        _check(server)
        if end := dead_stubs.end_of_one():
            killed = end.killed and server.kernel_was_short_of_memory()
            cause = Cause.OUT_OF_MEMORY if killed else Cause.CRASHED
            raise _failure(server, f"the process of a model instance {end.how}", cause)
        if time.monotonic() > deadline:
            raise _failure(server, f"not ready after {format_duration(allowed_s)}", Cause.TIMED_OUT)
        time.sleep(_LOOK_S)
    server.mind_model()
    _check(server)


def _is_ready(server: TritonServer) -> bool:
    try:
        socket.create_connection((server.endpoint.host, server.endpoint.port), timeout=_ASK_S).close()
    except OSError:
        return False
    with TritonClient(server.endpoint, timeout_s=_ASK_S) as client:
        try:
            # The name is checked, as the server of another run may listen there.
            return client.server().name == str(server.mark) and client.is_model_ready(server.model)
        except ServerError as error:
            if _RESTRICTED in str(error):
                what = f"{error}; set it by --header NAME:VALUE"
                raise LaunchError(f"model {server.model!r} cannot be reached: {what}", cause=error.cause) from error
            return False


def _check(server: TritonServer) -> None:
    """Raise an error if the server is gone, or has given up loading the model."""
    given_up = gave_up(read_log(server.log))
    try:
        server.check()
    except ServerDiedError as death:
        if port_taken(read_log(server.log)):
            raise PortTakenError from death
        raise _failure(server, f"{death} before it was ready", death.cause) from death
    if given_up:
        raise _failure(server, "Triton gave up loading it", Cause.INVALID_CONFIG)


def _failure(server: TritonServer, otherwise: str, cause: Cause) -> LaunchError:
    """The error with the reason from Triton's log; with `otherwise` if the log has none or time ran out."""
    text = read_log(server.log)
    reason = None if cause is Cause.TIMED_OUT else find_reason(text)
    message = reason.text if reason else otherwise
    if cause is not Cause.OUT_OF_MEMORY and reason:
        cause = reason.cause
    if _ENDED_UNSEEN in message and server.kernel_was_short_of_memory():
        message, cause = f"{message} (out of memory)", Cause.OUT_OF_MEMORY
    return LaunchError(f"model {server.model!r} does not load: {message}", cause=cause, last_words=last_words(text))


class _DeadStubs:
    """Finds stubs that died early, for which Triton waits without end."""

    def __init__(self, server: TritonServer) -> None:
        self._server = server
        self._next_look = 0.0
        self._since: dict[int, float] = {}

    def end_of_one(self) -> End | None:
        """The end of a stub that has been dead for 3 s, longer than Triton takes to notice; None: there is none."""
        now = time.monotonic()
        if now < self._next_look:
            return None
        self._next_look = now + _STUBS_EVERY_S
        for stub in self._server.find_stubs():
            if not stub.alive and now - self._since.setdefault(stub.pid, now) > _STUB_DEAD_FOR_S:
                return End.by(stub.exit_code)
        return None
