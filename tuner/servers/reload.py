"""One server for all candidates: it loads each in the place of the last."""

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
    """Has one server of another launcher load candidate after candidate, by config override.

    The server is started with the first, and anew after one with which anything went wrong.

    Args:
        launcher: Starts the server.
    """

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._running: _Running | None = None

    @property
    def description(self) -> str:
        """Which Triton this is."""
        return f"{self._launcher.description}, reloaded"

    @property
    def machine(self) -> Machine:
        """What the server runs on."""
        return self._launcher.machine

    @property
    def gpus(self) -> str | None:
        """Which GPUs the server sees."""
        return self._launcher.gpus

    def launch(self, request: Launch) -> Server:
        """Have the candidate loaded and return once the model is ready.

        Raises:
            LaunchError: it did not become ready.
            TuningError: nothing can be launched any more.
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
                # What is left of a candidate that does not load well is not known.
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
        """Stop the server, and give back what its launcher holds."""
        try:
            self._stop()
        finally:
            self._launcher.close()

    def _stop(self) -> None:
        running, self._running = self._running, None
        if running:
            running.server.stop()


class _Running:
    """The server, and what it was started for.

    Attributes:
        leased: Whether a candidate is at work on it.
    """

    def __init__(self, server: Server, request: Launch) -> None:
        self.server = server
        self.leased = False
        self._repository = request.repository
        self._model = request.model
        self._log = request.log
        self._control = ModelControl(server.endpoint)

    def takes(self, request: Launch) -> bool:
        """Whether it can serve this one, too."""
        try:
            self.server.check()
        except ServerDiedError:
            return False
        return (request.repository, request.model) == (self._repository, self._model)

    def load(self, request: Launch) -> Server:
        """Load a candidate.

        Raises:
            LaunchError: it does not become ready.
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
        """The server for one candidate."""
        self.leased = True
        return _Lease(self, request, began)

    def give_back(self, request: Launch, began: int) -> None:
        """Take the candidate down, and note what the server wrote meanwhile.

        Raises:
            ServerError: the server is gone, or does not do it.
        """
        try:
            if not self._control.unload(request.model, within_s=_UNLOAD_S):
                raise ServerError(f"model {request.model!r} did not unload within {_UNLOAD_S:g} s", cause=Cause.HUNG)
            self.server.mind_model()
        finally:
            copy_log(self._log, began, request.log)
            self.leased = False


class _Lease:
    """A server for one candidate."""

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
        """Take the candidate down; where that does not go well, the server with it."""
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
            # A candidate with which something went wrong leaves nothing to the next one.
            self._stopped = True
            self._running.leased = False
            self._running.server.stop()
        self.stop()


def _failure(request: Launch, error: ServerError) -> LaunchError:
    """Why a candidate does not load: the server's log says more than its answer."""
    text = read_log(request.log)
    message, cause = str(error), error.cause
    if cause is not Cause.TIMED_OUT and (reason := find_reason(text)):
        message, cause = f"model {request.model!r} does not load: {reason.text}", reason.cause
    return LaunchError(message, cause=cause, last_words=last_words(text))


def copy_log(log: Path, began: int, to: Path) -> None:
    """Copy what was written to a log since it had some size."""
    if log == to:
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    with log.open("rb") as source, to.open("wb") as target:
        source.seek(began)
        shutil.copyfileobj(source, target)
    clean_file(to)
