"""The seam behind which every way of getting a Triton lives.

A `Launcher` starts servers; a `Server` is one that runs and has the model ready. Every implementation passes the
contract tests in `tuner/testing/launcher_contract.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from typing_extensions import Self

from tuner.config.repository import CONFIG
from tuner.core.machine import Machine
from tuner.options.endpoint import Endpoint
from tuner.servers.usage import ServerUsage


@dataclass(frozen=True)
class Launch:
    """What to start.

    Attributes:
        repository: A staged model repository of our own (`tuner.config.staging`): real folders, files that may be
            links into the user's repository.
        model: The model to load; others of the repository load only when it needs them (ensembles).
        log: The file to which the server's output goes; who has any makes its folder, too.
        deadline_s: Seconds within which the model must be ready.
        also: More models to load, which that one calls.
    """

    repository: Path
    model: str
    log: Path
    deadline_s: float
    also: tuple[str, ...] = ()

    @property
    def config(self) -> str:
        """The text of the model's config.pbtxt; empty when it has none."""
        path = self.repository / self.model / CONFIG
        return path.read_text(encoding="utf-8") if path.exists() else ""


class Server(Protocol):
    """A Triton that runs, with the model ready. Leaving the context stops it."""

    @property
    def endpoint(self) -> Endpoint:
        """Where it is reached."""

    @property
    def command(self) -> str:
        """The command line (or its like) that started it, for people to read and repeat."""

    def check(self) -> None:
        """Raise `ServerDiedError`, with its cause and last words, when the server is no longer there. Takes < 1 ms."""

    def mind_model(self) -> None:
        """Take note of the model's own processes as they are now; from here on `check` minds them, too."""

    def usage(self) -> ServerUsage | None:
        """What it takes of processors and memory; None where nobody says, as of one that is gone. Raises nothing."""

    def stop(self, *, grace_s: float = 5.0) -> None:
        """Stop it and all that it started, for certain, within `grace_s` and a moment; again is harmless.

        A server that is not ours to stop is left running, without the candidate's hold on it.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Launcher(Protocol):
    """Starts servers, one at a time or several."""

    @property
    def machine(self) -> Machine:
        """What the servers run on.

        Raises:
            TuningError: it cannot be asked.
        """

    @property
    def description(self) -> str:
        """Which Triton this is, for the study's record: kind, version or digest, path."""

    @property
    def gpus(self) -> str | None:
        """Which GPUs of this machine its servers see: `all`, `none`, or as `CUDA_VISIBLE_DEVICES` and Docker write it.

        None: those of another machine.
        """

    def launch(self, request: Launch) -> Server:
        """Start a server and return once the model is ready.

        Raises:
            LaunchError: it did not become ready: the cause, and Triton's own last words; nothing is left behind.
            TuningError: nothing can be launched any more, whatever the candidate.
        """

    def remove_leftovers(self) -> tuple[str, ...]:
        """Remove what earlier runs, now dead, left behind. Returns the names of the servers that it was of."""

    def close(self) -> None:
        """Give back what it holds beyond its servers; again is harmless."""
