"""The driver's side of the actor of a host: its parts, and the files of the run."""

from __future__ import annotations

import contextlib
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tuner.cluster.files.manifest import FileEntry
from tuner.cluster.files.transfer import Source, send
from tuner.cluster.ray.host_actor import HostActor
from tuner.cluster.ray.nodes import Node
from tuner.cluster.ray.parts import in_parts
from tuner.cluster.slots import Parts
from tuner.core.errors import RepositoryError, TritontuneError
from tuner.options.tune_job import TuneJob

# Seconds that a call may take: a look, a chunk on a slow network, hashing a repository.
_LOOK_S = 10.0
_CHUNK_S = 300.0
_HASH_S = 3600.0


class HostLink:
    """Talks to the actor of a host. Methods raise what the actor raises, or Ray's exceptions.

    Args:
        node: The node.
        start_s: Seconds within which the actor must start.
    """

    def __init__(self, node: Node, start_s: float) -> None:
        self._node = node
        self._start_s = start_s
        self._lock = threading.Lock()
        self._actor: Any = None
        self._repository: Path | None = None
        self._input_data: str | None = None

    def parts(self, job: TuneJob) -> Parts:
        """The parts of the machine for a job."""
        with self._lock:
            found: Parts = pickle.loads(_get(self._living().parts.remote(*in_parts(job)), self._start_s))  # noqa: S301 (our own actor)
            return found

    def repository(self, source: Callable[[], Source], in_place: Path | None, note: Callable[[str], None]) -> Path:
        """The path of the repository on the host, which has it then.

        Args:
            source: The repository of the run.
            in_place: Where the host has it already; None: it is sent.
            note: Told what is sent.

        Raises:
            UsageError, TuningError: the repository cannot be sent, or differs on the host.
        """
        with self._lock:
            actor = self._living()
            if self._repository is None and in_place is not None:
                if difference := _get(actor.difference.remote(source().manifest, in_place), _HASH_S):
                    raise RepositoryError(f"--repository-on-hosts: {in_place} differs: {difference}")
                self._repository = in_place
            elif self._repository is None:
                path: Path = _get(actor.tree.remote(source().manifest), _HASH_S)
                send(source(), _Inbox(actor), self._node.name, note)
                self._repository = path
            return self._repository

    def input_data(self, contents: bytes) -> str:
        """The path of the input data of requests on the host, which has them then."""
        with self._lock:
            actor = self._living()
            if self._input_data is None:
                self._input_data = str(_get(actor.input_data.remote(contents), _CHUNK_S))
            return self._input_data

    def close(self) -> Any:
        """Begin to end the use of the files; returns Ray's reference to wait for, or None."""
        with contextlib.suppress(Exception):
            return self._actor.close.remote() if self._actor is not None else None
        return None

    def kill(self) -> None:
        """End the actor."""
        if self._actor is not None:
            with contextlib.suppress(Exception):
                ray.kill(self._actor, no_restart=True)

    def _living(self) -> Any:
        """The actor; another one if it has died."""
        if self._actor is not None:
            with contextlib.suppress(exceptions.RayError):
                _get(self._actor.__ray_ready__.remote(), _LOOK_S)
                return self._actor
        self._repository = self._input_data = None
        self._actor = (
            ray.remote(HostActor)
            .options(
                num_cpus=0,
                max_restarts=0,
                max_task_retries=0,
                max_concurrency=4,
                scheduling_strategy=NodeAffinitySchedulingStrategy(self._node.id, soft=False),
            )
            .remote(self._node.name)
        )
        _get(self._actor.__ray_ready__.remote(), self._start_s)
        return self._actor


class _Inbox:
    """The host's side of a transfer."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def missing(self) -> tuple[FileEntry, ...]:
        found: tuple[FileEntry, ...] = _get(self._actor.missing.remote(), _HASH_S)
        return found

    def begin(self, file: FileEntry) -> int | None:
        offset: int | None = _get(self._actor.begin.remote(file), _HASH_S)
        return offset

    def receive(self, file: FileEntry, offset: int, chunk: bytes) -> int:
        after: int = _get(self._actor.receive.remote(file, offset, chunk), _CHUNK_S)
        return after


def _get(reference: Any, timeout_s: float) -> Any:
    """The result of a call, within a time limit."""
    try:
        return ray.get(reference, timeout=timeout_s)
    except exceptions.RayTaskError as error:
        if isinstance(error.cause, TritontuneError):
            raise error.cause from None
        raise
