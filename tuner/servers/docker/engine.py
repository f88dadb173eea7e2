"""The Docker engine, reached through docker-py: every call has a time-out, every error becomes one line."""

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
from tuner.servers.docker.site import engine_address

# A call that only asks is answered in milliseconds; one that makes or removes a container may wait for a slow disk.
_ASK_S = 5
_CALL_S = 60
# Of the API; any will do to ask which one the engine speaks.
_SOME_VERSION = "1.44"

# What docker-py raises: its own errors for what the engine answers, those of `requests` when it does not answer.
ENGINE_ERRORS = (DockerException, RequestException)


def connect(*, timeout_s: int = _CALL_S) -> DockerClient:
    """A client of the engine that `docker` on the command line would use, by DOCKER_HOST and its like. To be closed.

    Args:
        timeout_s: Of each call, and of the connection itself.

    Raises:
        TuningError: there is no engine that can be used.
    """
    with engine_trouble():
        # Unlike docker-py itself, which asks for the version when a client is made, this closes what it opens.
        with closing(_client(timeout_s, _SOME_VERSION)) as probe:
            _knock(probe, timeout_s)
            version = probe.version(api_version=False)["ApiVersion"]
        return _client(timeout_s, version)


def _client(timeout_s: int, version: str) -> DockerClient:
    client = DockerClient.from_env(timeout=timeout_s, version=version)
    if isinstance(client.api.verify, str):
        # Else REQUESTS_CA_BUNDLE and its like would win over the engine's own CA.
        client.api.trust_env = False
    return client


def engine_problem(image: str | None) -> str | None:
    """Why Docker cannot be used here, with this image if one is named, in one line; None: it can."""
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
    """Let what docker-py raises within leave as a `TuningError` of one line: without its engine, no job goes on."""
    try:
        yield
    except ENGINE_ERRORS as error:
        raise TuningError(explain(error)) from error


def explain(error: DockerException | RequestException) -> str:
    """What a docker-py error says, in one line for people."""
    match error:
        case ImageNotFound():
            text = f"Docker lacks the image: {error.explanation}"
        case APIError():
            text = str(error.explanation or error)
        case SSLError():
            text = f"the Docker engine cannot be trusted, or does not trust us: {error}; see DOCKER_CERT_PATH"
        case RequestException():
            text = "the Docker engine does not answer"
        case DockerException(__cause__=NameError()):  # docker-py could not import its adapter for ssh://
            # docker-py would have its reader install a package that he may never have heard of.
            text = "the Docker engine is reached by ssh://, which needs more: pip install 'tritontune[ssh]' (paramiko)"
        case _:
            text = f"the Docker engine cannot be used: {error}"
    return " ".join(text.split())


def _knock(client: DockerClient, timeout_s: int) -> None:
    """See whether somebody is there, and why not."""
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
        reason = f"there is no Docker engine: {path} does not exist; DOCKER_HOST can name another"
    except PermissionError:
        reason = (
            f"this user may not use the Docker engine: {path} is for root and members of its group{_group_of(path)}"
        )
    except OSError as error:
        reason = f"the Docker engine does not answer at {path}: {error.strerror or error}"
    else:
        return
    raise TuningError(reason)


def _knock_over_the_network(timeout_s: int) -> None:
    where = os.environ.get("DOCKER_HOST", "")
    if (address := engine_address(where)) is None or where.startswith("ssh:"):
        return  # docker-py asks by itself when it makes a connection through ssh
    try:
        socket.create_connection(address, timeout_s).close()
    except OSError as error:
        raise TuningError(f"the Docker engine does not answer at {where}: {error.strerror or error}") from error


def _group_of(path: str) -> str:
    """The number that a container needs as its `--group-add`."""
    try:
        return f" ({Path(path).stat().st_gid})"
    except OSError:
        return ""
