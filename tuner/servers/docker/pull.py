"""Pulls an image that the engine does not have, and reports the progress."""

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

# In s: an engine reports a pull several times a second, but less often while it unpacks a huge layer.
_SILENCE_S = 300

# How engines report a wrong image name or missing access; anything else is a fault of network or disk.
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
    """The progress of a pull.

    Attributes:
        image: The image's name.
        layers: Number of layers known so far.
        layers_done: Number of layers downloaded and unpacked.
        done_bytes: Bytes downloaded, over all layers.
        total_bytes: Bytes to download, over all layers of known size.
        ended: Whether the pull is complete.
    """

    image: str
    layers: int = 0
    layers_done: int = 0
    done_bytes: int = 0
    total_bytes: int = 0
    ended: bool = False


SeePull = Callable[[Pull], None]
"""Called with the progress of a pull: at its start, on each change, and at its end."""


class ImageNameError(JobError):
    """No image has that name, or we have no access to it."""


def ensure_image(image: str, see: SeePull) -> None:
    """Pull an image, unless the engine has it.

    Raises:
        ImageNameError: there is no such image, or no access to it.
        TuningError: the engine cannot be used, or fails to pull it.
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
    """A client with a time-out for each progress message of a pull; docker-py would wait for ever."""

    def post(self, url: str | bytes, data: Any = None, json: Any = None, **kwargs: Any) -> Any:
        """See `requests.Session`."""
        return super().post(url, data, json, **{**kwargs, "timeout": _SILENCE_S})


def _events(image: str, version: str) -> Iterator[Mapping[str, Any]]:
    """The engine's progress messages during a pull."""
    try:
        with closing(_PatientClient(version=version, timeout=_SILENCE_S, **kwargs_from_env())) as client:
            for event in client.pull(image, stream=True, decode=True):
                if "error" in event:
                    raise _refusal(image, str(event["error"]))
                yield event
    except HTTPError as error:
        raise TuningError(f"image {image} cannot be pulled: the engine reported nothing for {_SILENCE_S} s") from error
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
    """Sums the progress over all layers."""

    def __init__(self, image: str) -> None:
        self._image = image
        self._status: dict[str, str] = {}
        self._done_bytes: dict[str, int] = {}
        self._total_bytes: dict[str, int] = {}

    def note(self, event: Mapping[str, Any]) -> bool:
        """Process an event. Returns whether it was about a layer."""
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
        """The progress so far."""
        return Pull(
            self._image,
            layers=len(self._status),
            layers_done=sum(status in _DONE for status in self._status.values()),
            done_bytes=sum(self._done_bytes.values()),
            total_bytes=sum(self._total_bytes.values()),
            ended=ended,
        )
