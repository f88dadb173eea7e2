"""Tunes a Triton that the user runs: loads candidates by config override, and later restores its own configs."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from types import TracebackType

from typing_extensions import Self

from tuner.config.config import ModelConfig
from tuner.core.errors import (
    Cause,
    InterruptedRunError,
    JobError,
    LaunchError,
    ServerDiedError,
    ServerError,
    ServerHungError,
    TuningError,
)
from tuner.core.interrupts import ForcedError, until_forced
from tuner.core.machine import Machine
from tuner.options.endpoint import Endpoint
from tuner.servers.client import TritonClient
from tuner.servers.metrics import machine_of
from tuner.servers.model_control import ModelControl
from tuner.servers.own_configs import OwnConfigs
from tuner.servers.protocols import Launch, Server
from tuner.servers.usage import ServerUsage

# In s: it may be restarting.
_COMES_BACK_S = 30.0
_KNOCK_S = 0.5
_UNLOAD_S = 10.0
_RESTORE_S = 120.0
_CHECK_EVERY_S = 1.0
_ASK_S = 5.0


class RemoteLauncher:
    """Loads candidate after candidate on a running server.

    Args:
        endpoint: The server's endpoint; it must be in explicit model control.
        metrics_url: The URL of its metrics, for its GPUs; None: port 8002 of the same host.
        note: Called with a line for each model that could not be restored.
        own: The stored own configs; `close` also restores those of a killed run.
    """

    def __init__(
        self, endpoint: Endpoint, metrics_url: str | None, note: Callable[[str], None], own: OwnConfigs | None = None
    ) -> None:
        self._endpoint = endpoint
        self._metrics_url = metrics_url
        self._note = note
        self._control = ModelControl(endpoint)
        self._own = own
        # The own effective configs of the models that were changed; None: the model was not loaded.
        self._before: dict[str, str | None] = dict(own.kept()) if own else {}
        self._in_use = False

    @property
    def description(self) -> str:
        """The server's version and URL.

        Raises:
            ServerError: the server does not answer.
        """
        with TritonClient(self._endpoint, timeout_s=_ASK_S) as client:
            return f"Triton {client.server().version} at {self._endpoint.url}"

    @property
    def machine(self) -> Machine:
        """The machine that the server runs on, by its metrics."""
        return machine_of(self._endpoint, self._metrics_url)

    @property
    def gpus(self) -> None:
        """None, as the server is on another machine."""
        return

    def look(self) -> None:
        """Check that the server can be tuned.

        Raises:
            JobError: the server is not reachable, not a Triton, or not in explicit model control.
        """
        try:
            refusal = self._control.refusal()
        except ServerError as error:
            raise JobError(f"--url: {error}") from error
        if refusal:
            raise JobError(
                f"--url: the Triton at {self._endpoint.address} is not in explicit model control; "
                "start it with --model-control-mode=explicit, so that candidates can be loaded"
            )

    def launch(self, request: Launch) -> Server:
        """Load a candidate and return once the model is ready.

        Raises:
            LaunchError: the model did not become ready.
            TuningError: the server has ended and does not restart, or already serves another candidate.
        """
        if self._in_use:
            raise TuningError(f"the Triton at {self._endpoint.address} serves one candidate at a time")
        self._await_server()
        model = request.model
        others = dict.fromkeys(path.partition("/")[0] for path in request.patch.files)
        for name in (*others, model):
            self._load(name, request)
        self._in_use = True
        return _RemoteServer(self._endpoint, model, self._give_back)

    def _load(self, model: str, request: Launch) -> None:
        try:
            self._remember(model)
            self._control.unload(model, within_s=_UNLOAD_S)
            self._control.load(model, request.config_of(model), within_s=request.deadline_s, alive=_not_watched)
        except LaunchError:
            raise
        except ServerError as error:
            raise LaunchError(f"model {model!r} does not load: {error}", cause=error.cause) from error

    def remove_leftovers(self) -> tuple[str, ...]:
        """Return nothing: a remote server leaves no leftovers of ours."""
        return ()

    def close(self) -> None:
        """Restore the own config of each changed model; unload those that were not loaded before.

        Raises:
            InterruptedRunError: Ctrl-C was pressed again; the message names the models that are not restored.
        """
        left, self._before = self._before, {}
        if not left and self._own is None:
            return
        missed: dict[str, str | None] = {}
        try:
            with until_forced(self._tell_of_force) if left else nullcontext():
                for model, config in list(left.items()):
                    try:
                        self._restore(model, config)
                    except ServerError as error:
                        missed[model] = config
                        self._note(
                            f"{model} at {self._endpoint.address} may still have a candidate's config: {error}; "
                            "unload and reload it there"
                        )
                    del left[model]
        except ForcedError:
            missed |= left
            names = ", ".join(missed)
            way_out = "tritontune run --resume restores them" if self._own else "unload and reload them there"
            raise InterruptedRunError(
                f"interrupted before the own configs at {self._endpoint.address} were restored: {names}; {way_out}"
            ) from None
        finally:
            if self._own:
                self._own.keep({**missed, **left})

    def _tell_of_force(self) -> None:
        self._note(
            f"restoring the models' own configs at {self._endpoint.address}; "
            "press Ctrl-C again to stop that, and to see which models are not restored"
        )

    def _restore(self, model: str, config: str | None) -> None:
        # Loading without unloading would keep the override.
        self._control.unload(model, within_s=_UNLOAD_S)
        if config is None:
            return
        self._control.load(model, "", within_s=_RESTORE_S, alive=_not_watched)
        if self._config_of(model) != config:
            # It was loaded with an override before, or its file has changed since.
            self._control.load(model, config, within_s=_RESTORE_S, alive=_not_watched)

    def _config_of(self, model: str) -> str:
        with TritonClient(self._endpoint, timeout_s=_ASK_S) as client:
            return ModelConfig.from_proto(client.model_config(model)).text

    def _remember(self, model: str) -> None:
        if model in self._before:
            return
        with TritonClient(self._endpoint, timeout_s=_ASK_S) as client:
            models = client.models()
            if model not in models:
                reason = f"the repository of {self._endpoint.address} has no such model"
                raise LaunchError(f"model {model!r} does not load: {reason}", cause=Cause.INVALID_CONFIG)
            ready = client.is_model_ready(model)
        self._before[model] = self._config_of(model) if ready else None
        if self._own:
            self._own.keep(self._before)

    def _await_server(self) -> None:
        """Return once the server answers.

        Raises:
            TuningError: it does not answer for 30 s.
        """
        deadline = time.monotonic() + _COMES_BACK_S
        while True:
            try:
                with TritonClient(self._endpoint, timeout_s=_ASK_S) as client:
                    client.server()
            except (ServerDiedError, ServerHungError) as error:
                if time.monotonic() > deadline:
                    raise TuningError(f"{error}; it did not come back within {_COMES_BACK_S:g} s") from error
                time.sleep(_KNOCK_S)
            else:
                return

    def _give_back(self) -> None:
        self._in_use = False


class _RemoteServer:
    """The remote server while it serves a candidate; implements `Server`."""

    def __init__(self, endpoint: Endpoint, model: str, give_back: Callable[[], None]) -> None:
        self._endpoint = endpoint
        self._model = model
        self._give_back = give_back
        self._client = TritonClient(endpoint, timeout_s=_ASK_S)
        self._stopped = False
        self._next_check = time.monotonic() + _CHECK_EVERY_S

    @property
    def endpoint(self) -> Endpoint:
        """See `Server`."""
        return self._endpoint

    @property
    def command(self) -> str:
        """See `Server`."""
        return f"# load {self._model!r} with this config.pbtxt on {self._endpoint.url}"

    def check(self) -> None:
        """Ask the server, at most once a second, whether the model is ready.

        Raises:
            ServerDiedError: the server is gone, or the model is not ready any more.
        """
        if self._stopped:
            raise ServerDiedError("the server was stopped", cause=Cause.CRASHED)
        if time.monotonic() < self._next_check:
            return
        try:
            if not self._client.is_model_ready(self._model):
                what = f"model {self._model!r} at {self._endpoint.address} is no longer ready"
                raise ServerDiedError(what, cause=Cause.CRASHED)
        except ServerHungError:
            pass  # The deadlines of requests handle a slow server.
        self._next_check = time.monotonic() + _CHECK_EVERY_S

    def mind_model(self) -> None:
        """Do nothing, as its processes are not visible here."""

    def usage(self) -> ServerUsage | None:
        """Return None, as its usage is not visible here."""
        return None

    def stop(self, *, grace_s: float = 5.0) -> None:  # noqa: ARG002 (nothing is stopped)
        """Release the server for the next candidate, or for `RemoteLauncher.close`."""
        if not self._stopped:
            self._stopped = True
            self._client.close()
            self._give_back()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _not_watched() -> None:
    """Do nothing, as the call itself fails if the server ends."""
