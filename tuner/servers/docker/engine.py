"""The Docker engine, through docker-py: every call has a time-out, and every error becomes one line."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from docker import DockerClient
from docker.errors import APIError, DockerException, ImageNotFound
from docker.transport import UnixHTTPAdapter
from requests.exceptions import RequestException, SSLError

from tuner.core.errors import TuningError
from tuner.servers.docker.engine_location import engine_address

# Time-outs in s: a query takes ms; creating or removing a container may wait for a slow disk.
_ASK_S = 5
_CALL_S = 60
# Any API version, for the query of the engine's own version.
_SOME_VERSION = "1.44"

# docker-py raises its own errors for answers of the engine, and errors of `requests` without an answer.
ENGINE_ERRORS = (DockerException, RequestException)


def connect(*, timeout_s: int = _CALL_S) -> DockerClient:
    """A client of the engine that the `docker` command would use (DOCKER_HOST etc.). The caller closes it.

    Args:
        timeout_s: Time-out of the connection and of each call, in seconds.

    Raises:
        TuningError: no engine can be used.
    """
    with engine_trouble():
        # docker-py itself asks for the version when it makes a client, but does not close that connection.
        with closing(_client(timeout_s, _SOME_VERSION)) as probe:
            _ping(probe, timeout_s)
            version = probe.version(api_version=False)["ApiVersion"]
        return _client(timeout_s, version)


def _client(timeout_s: int, version: str) -> DockerClient:
    client = DockerClient.from_env(timeout=timeout_s, version=version)
    if isinstance(client.api.verify, str):
        # Otherwise variables such as REQUESTS_CA_BUNDLE would take precedence over the engine's own CA.
        client.api.trust_env = False
    return client


def engine_problem(image: str | None) -> str | None:
    """Why Docker cannot be used here (with this image, if given), in one line; None: it can."""
    try:
        with closing(connect(timeout_s=_ASK_S)) as client, engine_trouble():
            if image is not None:
                client.images.get(image)
    except TuningError as trouble:
        if isinstance(trouble.__cause__, ImageNotFound):
            return f"image {image!r} is not on this machine; get it with: docker pull {image}"
        return str(trouble)
    return None


@contextmanager
def engine_trouble() -> Iterator[None]:
    """Convert docker-py's errors to a `TuningError` of one line, since no job can continue without the engine."""
    try:
        yield
    except ENGINE_ERRORS as error:
        raise TuningError(explain(error)) from error


def explain(error: DockerException | RequestException) -> str:
    """A docker-py error in one line, for the user."""
    match error:
        case ImageNotFound():
            text = f"Docker does not have the image: {error.explanation}"
        case APIError():
            text = str(error.explanation or error)
        case SSLError():
            text = f"TLS with the Docker engine failed: {error}; check DOCKER_CERT_PATH"
        case RequestException():
            text = "the Docker engine does not answer"
        case DockerException(__cause__=NameError()):  # docker-py could not import its adapter for ssh://
            # docker-py's message names a package that users of tritontune need not know.
            text = "DOCKER_HOST=ssh://... needs paramiko: pip install 'tritontune[ssh]'"
        case _:
            text = f"the Docker engine cannot be used: {error}"
    return " ".join(text.split())


def _ping(client: DockerClient, timeout_s: int) -> None:
    """Check that the engine accepts connections; else raise the error of connecting."""
    adapter = client.api.get_adapter(client.api.base_url)
    if not isinstance(adapter, UnixHTTPAdapter):
        _knock_over_the_network(timeout_s)
        return
    path = adapter.socket_path
    try:
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(timeout_s)
            door.connect(path)
    except FileNotFoundError:
        reason = f"no Docker engine: {path} does not exist; set DOCKER_HOST to use another engine"
    except PermissionError:
        reason = f"no permission to use the Docker engine: {path} is for root and members of its group{_group_of(path)}"
    except OSError as error:
        reason = f"the Docker engine does not answer at {path}: {error.strerror or error}"
    else:
        return
    raise TuningError(reason)


def _knock_over_the_network(timeout_s: int) -> None:
    where = os.environ.get("DOCKER_HOST", "")
    if (address := engine_address(where)) is None or where.startswith("ssh:"):
        return  # docker-py checks the connection through ssh itself
    try:
        socket.create_connection(address, timeout_s).close()
    except OSError as error:
        raise TuningError(f"the Docker engine does not answer at {where}: {error.strerror or error}") from error


def _group_of(path: str) -> str:
    """The group id of the socket, which a container needs as `--group-add`."""
    try:
        return f" ({Path(path).stat().st_gid})"
    except OSError:
        return ""
