"""Loads and unloads models on a Triton in explicit model control, with a deadline, and watches the server meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from tuner.core.errors import Cause, LaunchError, ServerDiedError, ServerError, ServerHungError
from tuner.core.quantities import format_duration
from tuner.options.endpoint import Endpoint
from tuner.servers.client import TritonClient
from tuner.servers.triton_log import find_reason

_LOOK_S = 0.01
_ASK_S = 5.0
# The state of a model that is being unloaded.
_UNLOADING = "UNLOADING"
_NOT_ALLOWED = "explicit model load / unload is not allowed"
_NO_MODEL = "tritontune-asks-for-a-model-that-is-not-there"


class ModelControl:
    """Model control of one server.

    Args:
        endpoint: The server's endpoint.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def refusal(self) -> str | None:
        """Why the server refuses to load models; None: it accepts loads.

        Raises:
            ServerError: the server does not answer.
        """
        with TritonClient(self._endpoint, timeout_s=_ASK_S) as client:
            try:
                client.load_model(_NO_MODEL)
            except (ServerDiedError, ServerHungError):
                raise
            except ServerError as error:
                return str(error) if _NOT_ALLOWED in str(error) else None
        return None

    def load(self, model: str, config: str, *, within_s: float, alive: Callable[[], None]) -> None:
        """Load a model with a config override, and return once it is ready.

        Args:
            model: The name of a model in the server's repository.
            config: The text of a config.pbtxt; empty: the one in the repository.
            within_s: The deadline, in seconds.
            alive: Raises `ServerDiedError` if the server is gone; called repeatedly.

        Raises:
            LaunchError: the model does not load, or not in time.
            ServerDiedError: the server is gone.
        """
        override = as_override(config) if config.strip() else None
        call = _Call(self._endpoint, within_s, lambda client: client.load_model(model, override))
        try:
            call.wait(alive)
        except ServerHungError:
            reason = f"not ready after {format_duration(within_s)}"
            raise LaunchError(f"model {model!r} does not load: {reason}", cause=Cause.TIMED_OUT) from None
        except ServerError as error:
            alive()
            reason, cause = str(error), Cause.INVALID_CONFIG
            if problem := find_reason(reason):
                reason, cause = problem.text, problem.cause
            raise LaunchError(f"model {model!r} does not load: {reason}", cause=cause) from error

    def unload(self, model: str, *, within_s: float) -> bool:
        """Unload a model, and wait until it is unloaded. Returns whether that was in time.

        Raises:
            ServerError: the server has ended, or refuses.
        """
        deadline = time.monotonic() + within_s
        with TritonClient(self._endpoint, timeout_s=_ASK_S) as client:
            client.unload_model(model)
            while client.models().get(model) in {_UNLOADING, "READY"}:
                if time.monotonic() > deadline:
                    return False
                time.sleep(_LOOK_S)
        return True


def as_override(text: str) -> str:
    """A config.pbtxt as JSON for a load request.

    Raises:
        LaunchError: it has a field that cannot be sent; the message says where.
    """
    config = model_config_pb2.ModelConfig()
    try:
        # Strict, as unknown fields would be lost.
        text_format.Parse(text, config)
    except text_format.ParseError as error:
        line, column = error.GetLine(), error.GetColumn()
        reason = str(error).removeprefix(f"{line}:{column} : ")
        raise LaunchError(f"config.pbtxt:{line}:{column}: {reason}", cause=Cause.INVALID_CONFIG) from None
    return json_format.MessageToJson(config, preserving_proto_field_name=True, indent=None)


class _Call:
    """A call to a server in its own thread, while the server is watched."""

    def __init__(self, endpoint: Endpoint, within_s: float, ask: Callable[[TritonClient], None]) -> None:
        self._client = TritonClient(endpoint, timeout_s=within_s)
        self._ask = ask
        self._error: ServerError | None = None
        self._thread = threading.Thread(target=self._run, name="load a model", daemon=True)

    def wait(self, alive: Callable[[], None]) -> None:
        """Make the call, and wait for its answer.

        Raises:
            ServerError: raised by the call or by `alive`.
        """
        self._thread.start()
        try:
            while self._thread.is_alive():
                alive()
                self._thread.join(_LOOK_S)
        finally:
            # This cancels a call that is still under way.
            self._client.close()
        if self._error:
            raise self._error

    def _run(self) -> None:
        try:
            self._ask(self._client)
        except ServerError as error:
            self._error = error
        except Exception as error:  # noqa: BLE001 (a client that is closed during a call raises many kinds of errors)
            self._error = ServerError(str(error), cause=Cause.CRASHED)
