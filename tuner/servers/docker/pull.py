"""Brings an image to the engine that has not got it, and tells how far that is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from docker import APIClient, DockerClient
from docker.errors import APIError, DockerException, ImageNotFound
from docker.utils import kwargs_from_env
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from tuner.core.errors import JobError, TritontuneError, TuningError
from tuner.servers.docker.engine import ENGINE_ERRORS, connect, engine_trouble, explain

# An engine that pulls says so several times a second; while it unpacks a huge layer, on some, less often.
_SILENCE_S = 300

# What the engine says of an image that there is not, or not for us; all else is the network's or the disk's fault.
_WRONG_NAME = re.compile(
    r"not found|manifest unknown|name unknown|denied|unauthorized|invalid reference|does not exist|no matching manifest"
    r"|invalid tag|must be lowercase",
    re.IGNORECASE,
)
_DONE = frozenset({"Already exists", "Pull complete"})
_DOWNLOADED = frozenset({"Download complete", "Verifying Checksum", "Extracting", *_DONE})
_LAYER = frozenset({"Pulling fs layer", "Waiting", "Downloading", *_DOWNLOADED})


@dataclass(frozen=True)
class Pull:
    """How far an image is.

    Attributes:
        image: Which.
        layers: Of which it is made, as far as is known.
        layers_done: Those that are downloaded and unpacked.
        done_bytes: Downloaded, over all layers.
        total_bytes: To download, over all layers whose size is known.
        ended: Whether it is there.
    """

    image: str
    layers: int = 0
    layers_done: int = 0
    done_bytes: int = 0
    total_bytes: int = 0
    ended: bool = False


SeePull = Callable[[Pull], None]
"""Is told how far a pull is, at its begin, with each news, and at its end."""


class ImageNameError(JobError):
    """There is no image of that name, or it is not for us."""


def ensure_image(image: str, see: SeePull) -> None:
    """Pull an image, unless the engine has it.

    Raises:
        ImageNameError: there is no such image, or it is not for us.
        TuningError: the engine cannot be used, or does not get it.
    """
    with closing(connect()) as client:
        with engine_trouble():
            if _has(client, image):
                return
            version = client.api.api_version
        see(Pull(image))
        layers = _Layers(image)
        for event in _events(image, version):
            if layers.note(event):
                see(layers.pull())
        see(layers.pull(ended=True))


def _has(client: DockerClient, image: str) -> bool:
    try:
        client.images.get(image)
    except ImageNotFound:
        return False
    except APIError as error:
        if _WRONG_NAME.search(_reason(error)):
            raise _refusal(image, _reason(error)) from error
        raise
    return True


class _PatientClient(APIClient):
    """Waits for each piece of news for so long, where docker-py would wait for ever."""

    def post(self, url: str | bytes, data: Any = None, json: Any = None, **kwargs: Any) -> Any:
        """See `requests.Session`."""
        return super().post(url, data, json, **{**kwargs, "timeout": _SILENCE_S})


def _events(image: str, version: str) -> Iterator[Mapping[str, Any]]:
    """What the engine says while it pulls."""
    try:
        with closing(_PatientClient(version=version, timeout=_SILENCE_S, **kwargs_from_env())) as client:
            for event in client.pull(image, stream=True, decode=True):
                if "error" in event:
                    raise _refusal(image, str(event["error"]))
                yield event
    except HTTPError as error:
        raise TuningError(f"image {image} cannot be pulled: the engine fell silent") from error
    except ENGINE_ERRORS as error:
        raise _refusal(image, _reason(error)) from error


def _reason(error: DockerException | RequestException) -> str:
    return str(getattr(error, "explanation", None) or explain(error))


def _refusal(image: str, reason: str) -> TritontuneError:
    line = " ".join(reason.split())
    if _WRONG_NAME.search(line):
        return ImageNameError(f"--image: {image} cannot be pulled: {line}")
    return TuningError(f"image {image} is not on this machine and cannot be pulled: {line}")


class _Layers:
    """Sums up what is told of each layer."""

    def __init__(self, image: str) -> None:
        self._image = image
        self._status: dict[str, str] = {}
        self._done_bytes: dict[str, int] = {}
        self._total_bytes: dict[str, int] = {}

    def note(self, event: Mapping[str, Any]) -> bool:
        """Take one in; whether it was news of a layer."""
        layer, status = event.get("id"), event.get("status")
        if not layer or status not in _LAYER:
            return False
        self._status[layer] = status
        detail = event.get("progressDetail") or {}
        if status == "Downloading" and detail.get("total"):
            self._done_bytes[layer] = detail["current"]
            self._total_bytes[layer] = detail["total"]
        elif status in _DOWNLOADED:
            self._done_bytes[layer] = self._total_bytes.get(layer, 0)
        return True

    def pull(self, *, ended: bool = False) -> Pull:
        """How far it is."""
        return Pull(
            self._image,
            layers=len(self._status),
            layers_done=sum(status in _DONE for status in self._status.values()),
            done_bytes=sum(self._done_bytes.values()),
            total_bytes=sum(self._total_bytes.values()),
            ended=ended,
        )
