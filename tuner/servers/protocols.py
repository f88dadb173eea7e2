"""The interfaces of launchers and servers.

A `Launcher` starts servers; a `Server` runs with its model ready. Every implementation passes the contract tests in
`tuner/testing/launcher_contract.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from typing_extensions import Self

from tuner.config.patch import NO_CHANGES, Patch
from tuner.config.repository import CONFIG
from tuner.core.machine import Machine
from tuner.options.endpoint import Endpoint
from tuner.servers.usage import ServerUsage


@dataclass(frozen=True)
class Launch:
    """A request to start a server.

    Attributes:
        repository: A staged model repository (`tuner.config.staging`): real folders, with links to the user's files.
        model: The model to load; others load only if it needs them (ensembles).
        log: The file for the server's output; a launcher with output creates its folder.
        deadline_s: Seconds within which the model must be ready.
        also: Further models to load, which the model calls.
        patch: The candidate's arguments and variables; its files are in the repository already.
        caches: A folder in which the model keeps what it builds for later launches; None: it needs none.
    """

    repository: Path
    model: str
    log: Path
    deadline_s: float
    also: tuple[str, ...] = ()
    patch: Patch = NO_CHANGES
    caches: Path | None = None

    @property
    def config(self) -> str:
        """The text of the model's config.pbtxt; empty if it has none."""
        return self.config_of(self.model)

    def config_of(self, model: str) -> str:
        """The text of a model's config.pbtxt; empty if it has none."""
        path = self.repository / model / CONFIG
        return path.read_text(encoding="utf-8") if path.exists() else ""


class Server(Protocol):
    """A Triton that runs, with the model ready. Leaving the context stops it."""

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint of the server."""

    @property
    def command(self) -> str:
        """The command line (or equivalent) that started it, for the user to repeat."""

    def check(self) -> None:
        """Raise `ServerDiedError`, with cause and last words, if the server is gone. Takes < 1 ms."""

    def mind_model(self) -> None:
        """Record the current processes of the model; from now on `check` also checks them."""

    def usage(self) -> ServerUsage | None:
        """CPU and memory usage so far; None: unknown, or the server is gone. Raises nothing."""

    def stop(self, *, grace_s: float = 5.0) -> None:
        """Stop the server and all its processes, within little more than `grace_s` seconds; may be repeated.

        A remote server keeps running, and is released for the next candidate.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Launcher(Protocol):
    """Starts servers, one at a time or several."""

    @property
    def machine(self) -> Machine:
        """The machine that the servers run on.

        Raises:
            TuningError: the machine cannot be determined.
        """

    @property
    def description(self) -> str:
        """The Triton, for the study's record: kind, version or digest, path."""

    @property
    def gpus(self) -> str | None:
        """The GPUs of this machine that its servers see: `all`, `none`, or a list as in `CUDA_VISIBLE_DEVICES`.

        None: the servers use another machine.
        """

    def launch(self, request: Launch) -> Server:
        """Start a server and return once the model is ready.

        Raises:
            LaunchError: the model did not become ready (with cause and Triton's last words); nothing is left behind.
            TuningError: no candidate can be launched any more.
        """

    def remove_leftovers(self) -> tuple[str, ...]:
        """Remove the leftovers of killed runs. Returns the names of their servers."""

    def close(self) -> None:
        """Release resources other than its servers; may be repeated."""
