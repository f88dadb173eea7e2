"""A Triton that somebody else runs: candidates are loaded there by config override, and its own config afterwards."""

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

# Who runs it may be starting it anew.
_COMES_BACK_S = 30.0
_KNOCK_S = 0.5
_UNLOAD_S = 10.0
_RESTORE_S = 120.0
_CHECK_EVERY_S = 1.0
_ASK_S = 5.0


class RemoteLauncher:
    """Has a server that runs load candidate after candidate.

    Args:
        endpoint: Of the server, in explicit model control.
        metrics_url: Where it tells of its GPUs; None: Triton's own port on the same host.
        note: Is told, in one line, of a model that could not be given its own config back.
        own: Outlives a kill; what it tells of an earlier one, `close` gives back, too.
    """

    def __init__(
        self, endpoint: Endpoint, metrics_url: str | None, note: Callable[[str], None], own: OwnConfigs | None = None
    ) -> None:
        self._endpoint = endpoint
        self._metrics_url = metrics_url
        self._note = note
        self._control = ModelControl(endpoint)
        self._own = own
        # The models that were touched, with their effective config as it was; None: it was not loaded.
        self._before: dict[str, str | None] = dict(own.kept()) if own else {}
        self._in_use = False

    @property
    def description(self) -> str:
        """The server's version, and where it is.

        Raises:
            ServerError: it cannot be asked.
        """
        with TritonClient(self._endpoint, timeout_s=_ASK_S) as client:
            return f"Triton {client.server().version} at {self._endpoint.url}"

    @property
    def machine(self) -> Machine:
        """What the server says that it runs on."""
        return machine_of(self._endpoint, self._metrics_url)

    @property
    def gpus(self) -> None:
        """Those of another machine."""
        return

    def look(self) -> None:
        """See that the server can be tuned.

        Raises:
            JobError: it is not there, is no Triton, or loads nothing when it is told to.
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
            LaunchError: it did not become ready.
            TuningError: the server is gone, and does not come back, or serves another candidate already.
        """
        if self._in_use:
            raise TuningError(f"the Triton at {self._endpoint.address} serves one candidate at a time")
        self._await_server()
        model = request.model
        try:
            self._remember(model)
            self._control.unload(model, within_s=_UNLOAD_S)
            self._control.load(model, request.config, within_s=request.deadline_s, alive=_not_watched)
        except LaunchError:
            raise
        except ServerError as error:
            raise LaunchError(f"model {model!r} does not load: {error}", cause=error.cause) from error
        self._in_use = True
        return _RemoteServer(self._endpoint, model, self._give_back)

    def remove_leftovers(self) -> tuple[str, ...]:
        """None are known: a server that is not ours has no mark."""
        return ()

    def close(self) -> None:
        """Give each model that was touched its own config back, or unload it if it was not loaded.

        Raises:
            InterruptedRunError: Ctrl-C came once more; the message names the models that have not got it back.
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
        # A load by itself would keep to an override.
        self._control.unload(model, within_s=_UNLOAD_S)
        if config is None:
            return
        self._control.load(model, "", within_s=_RESTORE_S, alive=_not_watched)
        if self._config_of(model) != config:
            # It had been loaded with an override, or its file has changed since.
            self._control.load(model, config, within_s=_RESTORE_S, alive=_not_watched)

    def _config_of(self, model: str) -> str:
        with TritonClient(self._endpoint, timeout_s=_ASK_S) as client:
            return ModelConfig.from_proto(client.model_config(model)).text

    def _remember(self, model: str) -> None:
        if model in self._before:
            return
        with TritonClient(self._endpoint, timeout_s=_ASK_S) as client:
            known = client.models()
            if model not in known:
                reason = f"the repository of {self._endpoint.address} has no such model"
                raise LaunchError(f"model {model!r} does not load: {reason}", cause=Cause.INVALID_CONFIG)
            ready = client.is_model_ready(model)
        self._before[model] = self._config_of(model) if ready else None
        if self._own:
            self._own.keep(self._before)

    def _await_server(self) -> None:
        """Return once the server is there.

        Raises:
            TuningError: it is not, for long.
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
    """The server while it serves a candidate."""

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
        """Ask the server, not more often than each second, whether it has the model ready.

        Raises:
            ServerDiedError: it is gone, or has the model no more.
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
            pass  # The requests under way have deadlines of their own.
        self._next_check = time.monotonic() + _CHECK_EVERY_S

    def mind_model(self) -> None:
        """Its processes are not to be seen from here."""

    def usage(self) -> ServerUsage | None:
        """Nor is what they take."""
        return None

    def stop(self, *, grace_s: float = 5.0) -> None:  # noqa: ARG002 (nothing is stopped)
        """Leave it to the next candidate, or to `RemoteLauncher.close`."""
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
    """A server that goes away ends the call by itself."""
