"""The Docker engine, reached through docker-py: every call has a time-out, every error becomes one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import docker
from docker.errors import APIError, DockerException, ImageNotFound
from requests.exceptions import RequestException, Timeout

from tuner.errors import TuningError

# A call that only asks is answered in milliseconds; one that makes or removes a container may wait for a slow disk.
_ASK_S = 5
_CALL_S = 60

# What docker-py raises: its own errors for what the engine answers, those of `requests` when it does not answer.
ENGINE_ERRORS = (DockerException, RequestException)


def connect(*, timeout_s: int = _CALL_S) -> docker.DockerClient:
    """A client of the engine that `docker` on the command line would use. To be closed.

    Raises:
        TuningError: there is no engine that can be used.
    """
    with engine_trouble():
        return docker.DockerClient.from_env(timeout=timeout_s)


@contextmanager
def engine_trouble() -> Iterator[None]:
    """Let what docker-py raises within leave as a `TuningError` of one line: without its engine, no job goes on."""
    try:
        yield
    except ImageNotFound as error:
        raise TuningError(f"Docker lacks the image: {explain(error)}") from error
    except ENGINE_ERRORS as error:
        raise TuningError(explain(error)) from error


def engine_problem(image: str) -> str | None:
    """Why Docker cannot be used here with this image, in one line; None: it can."""
    try:
        with closing(docker.DockerClient.from_env(timeout=_ASK_S)) as client:
            if not is_local(client):
                return "DOCKER_HOST names an engine on another machine; containers are started on this one only"
            client.images.get(image)
    except ImageNotFound:
        return f"image {image!r} is not on this machine; get it with: docker pull {image}"
    except ENGINE_ERRORS as error:
        return explain(error)
    return None


def is_local(client: docker.DockerClient) -> bool:
    """Whether the engine is reached through a socket of this machine, so that it sees the same files."""
    return client.api.base_url.startswith("http+docker://local")


def explain(error: BaseException) -> str:
    """What a docker-py error says, in one line for people."""
    if isinstance(error, APIError):
        return " ".join(str(error.explanation or error).split())
    if isinstance(error, Timeout):
        return "the Docker engine does not answer"
    match _origin(error):
        case FileNotFoundError():
            return "there is no Docker engine: its socket does not exist; start one, or name one with DOCKER_HOST"
        case PermissionError():
            return "this user may not use the Docker engine: permission denied; members of the group `docker` may"
        case ConnectionError() | TimeoutError():
            return "the Docker engine does not answer; is it running?"
        case origin:
            return f"the Docker engine cannot be used: {' '.join(str(origin).split())}"


def _origin(error: BaseException) -> BaseException:
    """The error at the bottom: docker-py wraps those of `requests`, which wrap those of the socket."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return error
