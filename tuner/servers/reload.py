"""A launcher that reloads candidates in one server, instead of relaunching it."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from tuner.core.errors import Cause, LaunchError, ServerDiedError, ServerError
from tuner.core.machine import Machine
from tuner.core.redaction import clean_file
from tuner.options.endpoint import Endpoint
from tuner.servers.model_control import ModelControl
from tuner.servers.protocols import Launch, Launcher, Server
from tuner.servers.triton_log import find_reason, last_words, read_log
from tuner.servers.usage import ServerUsage

_UNLOAD_S = 30.0


class ReloadLauncher:
    """Loads candidate after candidate in one server of another launcher, by config override.

    The server is started with the first candidate, and restarted after any failure.

    Args:
        launcher: The launcher that starts the server.
    """

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._running: _Running | None = None

    @property
    def description(self) -> str:
        """The Triton."""
        return f"{self._launcher.description}, reloaded"

    @property
    def machine(self) -> Machine:
        """The machine that the server runs on."""
        return self._launcher.machine

    @property
    def gpus(self) -> str | None:
        """The GPUs that the server sees."""
        return self._launcher.gpus

    def launch(self, request: Launch) -> Server:
        """Load a candidate, and return once the model is ready.

        Raises:
            LaunchError: the model did not become ready.
            TuningError: no candidate can be launched any more.
        """
        running = self._running
        if running and running.leased:
            return self._launcher.launch(request)
        if running and not running.takes(request):
            self._stop()
            running = None
        if running:
            try:
                return running.load(request)
            except BaseException as error:
                # After other failures, the state of the server is unknown.
                if not isinstance(error, LaunchError) or error.cause is not Cause.INVALID_CONFIG:
                    self._stop()
                raise
        server = self._launcher.launch(request)
        self._running = running = _Running(server, request)
        return running.lease(request, 0)

    def remove_leftovers(self) -> tuple[str, ...]:
        """See `Launcher`."""
        return self._launcher.remove_leftovers()

    def close(self) -> None:
        """Stop the server, and close its launcher."""
        try:
            self._stop()
        finally:
            self._launcher.close()

    def _stop(self) -> None:
        running, self._running = self._running, None
        if running:
            running.server.stop()


class _Running:
    """The running server.

    Attributes:
        leased: Whether a candidate uses it.
    """

    def __init__(self, server: Server, request: Launch) -> None:
        self.server = server
        self.leased = False
        self._repository = request.repository
        self._model = request.model
        self._log = request.log
        self._others = request.patch.beyond_config
        self._control = ModelControl(server.endpoint)

    def takes(self, request: Launch) -> bool:
        """Whether it can serve this request: it is alive, and differs in nothing but the model's config.

        Triton reads other models' configs and files when it loads them, and arguments and variables when it starts.
        """
        try:
            self.server.check()
        except ServerDiedError:
            return False
        wanted = (request.repository, request.model, request.patch.beyond_config)
        return wanted == (self._repository, self._model, self._others)

    def load(self, request: Launch) -> Server:
        """Load a candidate.

        Raises:
            LaunchError: the model does not become ready.
        """
        began = self._log.stat().st_size
        try:
            self._control.load(request.model, request.config, within_s=request.deadline_s, alive=self.server.check)
        except ServerError as error:
            copy_log(self._log, began, request.log)
            raise _failure(request, error) from error
        self.server.mind_model()
        return self.lease(request, began)

    def lease(self, request: Launch, began: int) -> Server:
        """A lease of the server for one candidate."""
        self.leased = True
        return _Lease(self, request, began)

    def give_back(self, request: Launch, began: int) -> None:
        """Unload the candidate, and copy the server's log since its load.

        Raises:
            ServerError: the server has ended, or refuses.
        """
        try:
            if not self._control.unload(request.model, within_s=_UNLOAD_S):
                raise ServerError(f"model {request.model!r} did not unload within {_UNLOAD_S:g} s", cause=Cause.HUNG)
            self.server.mind_model()
        finally:
            copy_log(self._log, began, request.log)
            self.leased = False


class _Lease:
    """The server while one candidate uses it; implements `Server`."""

    def __init__(self, running: _Running, request: Launch, began: int) -> None:
        self._running = running
        self._request = request
        self._began = began
        self._stopped = False

    @property
    def endpoint(self) -> Endpoint:
        """See `Server`."""
        return self._running.server.endpoint

    @property
    def command(self) -> str:
        """See `Server`."""
        return f"{self._running.server.command}\n# then load {self._request.model!r} with this config.pbtxt"

    def check(self) -> None:
        """See `Server`."""
        if self._stopped:
            raise ServerDiedError("the server was stopped", cause=Cause.CRASHED)
        self._running.server.check()

    def mind_model(self) -> None:
        """See `Server`."""
        self._running.server.mind_model()

    def usage(self) -> ServerUsage | None:
        """See `Server`."""
        return None if self._stopped else self._running.server.usage()

    def stop(self, *, grace_s: float = 5.0) -> None:
        """Unload the candidate; if that fails, stop the server."""
        if self._stopped:
            return
        self._stopped = True
        try:
            self._running.give_back(self._request, self._began)
        except ServerError:
            self._running.server.stop(grace_s=grace_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not self._stopped:
            # After a failure, the next candidate gets a new server.
            self._stopped = True
            self._running.leased = False
            self._running.server.stop()
        self.stop()


def _failure(request: Launch, error: ServerError) -> LaunchError:
    """The error of a candidate that does not load, by the server's log if possible, else by its answer."""
    text = read_log(request.log)
    message, cause = str(error), error.cause
    if cause is not Cause.TIMED_OUT and (reason := find_reason(text)):
        message, cause = f"model {request.model!r} does not load: {reason.text}", reason.cause
    return LaunchError(message, cause=cause, last_words=last_words(text))


def copy_log(log: Path, began: int, to: Path) -> None:
    """Copy the part of a log that was appended after its first `began` bytes."""
    if log == to:
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    with log.open("rb") as source, to.open("wb") as target:
        source.seek(began)
        shutil.copyfileobj(source, target)
    clean_file(to)
