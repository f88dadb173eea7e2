"""Finds out whether an engine sees our files at the same paths, so that it can mount them; else it needs copies."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from docker import DockerClient
from docker.errors import APIError
from docker.models.containers import Container

from tuner.core.errors import TuningError
from tuner.servers.docker.binds import Bind, linked_files
from tuner.servers.docker.container import remove_container

_STAT_HEADER = "X-Docker-Container-Path-Stat"


def engine_sees(
    client: DockerClient, image: str, binds: Sequence[Bind], *, name: str, labels: Mapping[str, str]
) -> bool:
    """Whether a container with these binds would see our files, and not other files at the same paths.

    The container is created but not started; the engine reads the metadata of files in it.

    Args:
        client: A connection to the engine.
        image: Any image that the engine has.
        binds: The staged repository, which we may write to, then the others; see `binds_of`.
        name: The container's name; it is removed again.
        labels: Labels by which leftovers are recognised.

    Raises:
        DockerException, RequestException: the engine fails.
    """
    repository = binds[0]
    token = repository.source / f".tritontune-{secrets.token_hex(8)}"
    try:
        token.touch()
        try:
            container = client.containers.create(
                image, ["true"], name=name, labels=dict(labels), mounts=[bind.mount() for bind in binds]
            )
        except APIError as error:
            if "bind source path" in str(error.explanation) or "invalid mount config" in str(error.explanation):
                return False
            raise
        files = [(token, repository.target / token.name), *_samples(repository.source, binds[1:])]
        return all(_is_same(ours, _stat(client, container, theirs)) for ours, theirs in files)
    except OSError as error:
        if error.filename is None:
            raise
        raise TuningError(f"{error.filename}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            token.unlink(missing_ok=True)
        remove_container(client, name)


def _samples(repository: Path, binds: Sequence[Bind]) -> Iterator[tuple[Path, Path]]:
    """One file of each bind: its path here, and its path in the container."""
    linked = list(linked_files(repository))
    for bind in binds:
        file = next(path for path in linked if path.is_relative_to(bind.source))
        yield file, bind.target / file.relative_to(bind.source)


def _stat(client: DockerClient, container: Container, path: Path) -> Mapping[str, Any] | None:
    url = f"{client.api.base_url}/v{client.api.api_version}/containers/{container.id}/archive"
    answer = client.api.head(url, params={"path": str(path)}, timeout=client.api.timeout)
    encoded = answer.headers.get(_STAT_HEADER)
    if not answer.ok or not encoded:
        return None
    stat: Mapping[str, Any] = json.loads(base64.b64decode(encoded))
    return stat


def _is_same(ours: Path, theirs: Mapping[str, Any] | None) -> bool:
    if theirs is None:
        return False
    status = ours.stat()
    # Some network file systems keep whole seconds only.
    seconds = datetime.fromisoformat(theirs["mtime"][:19] + "+00:00").timestamp()
    return theirs["size"] == status.st_size and seconds == int(status.st_mtime)
