"""Models that a server loads in addition, because the measured model calls them (BLS)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from tuner.config.repository import ModelFolder, ModelRepository
from tuner.core.errors import JobError, ServerError, nearest
from tuner.servers.model_control import ModelControl
from tuner.servers.protocols import Server

# Triton 2.51's messages about a called model that is not loaded, or unknown.
_MISSING = re.compile(r"[Mm]odel:? '([^']+)' is not (?:ready|found)")


def missing_model(message: str) -> str | None:
    """The missing model that a message of Triton names; None: the message is about something else."""
    match = _MISSING.search(message)
    return match[1] if match else None


class Callees:
    """The known callees of a model. Triton names a missing callee only when the model calls it.

    Args:
        model: The calling model.
        repository: The staged repository; None: the server is not ours, so nothing is loaded on it.
        names: The known callees.
        note: Called with a line for each callee that is found.

    Attributes:
        names: The callees to load with each launch.
    """

    def __init__(
        self,
        model: str,
        repository: Path | None = None,
        names: Sequence[str] = (),
        note: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self.names = tuple(name for name in dict.fromkeys(names) if name != model)
        self._model = model
        self._repository = repository
        self._note = note

    def hinted(self, error: ServerError) -> ServerError:
        """The error, with a hint if it is about a missing model."""
        name = missing_model(str(error))
        if name is None or name == self._model or name in self.names:
            return error
        what = f"{error}; {self._model} calls {name}"
        hint = f"{what}: load {name} on the server"
        if self._repository is not None:
            hint = f"{what}, which is not in the repository{nearest(name, self._others())}"
        return ServerError(hint, cause=error.cause, last_words=error.last_words)

    def load_missing(self, error: ServerError, server: Server, *, within_s: float) -> None:
        """Load the missing model that the error of a failed request names.

        Args:
            error: The error of the request.
            server: The server that it was sent to.
            within_s: How long the model may take to load, in seconds.

        Raises:
            ServerError: no model was missing, or the repository lacks it (with a hint), or it does not load.
        """
        name = missing_model(str(error))
        if name not in self._others() or name == self._model or name in self.names:
            raise self.hinted(error)
        self._note(f"loaded {name}, because {self._model} calls it; use --load-model {name} to load it from the start")
        ModelControl(server.endpoint).load(name, "", within_s=within_s, alive=server.check)
        server.mind_model()
        self.names += (name,)

    def _others(self) -> list[str]:
        """The models of the repository."""
        return sorted(path.name for path in self._repository.iterdir() if path.is_dir()) if self._repository else []


def check_load_model(names: Sequence[str], repository: ModelRepository, models: Sequence[ModelFolder]) -> None:
    """Check that the models of `--load-model` exist, and are not the only model that is tuned or measured.

    Raises:
        RepositoryError: a model does not exist.
        JobError: a model is the only one that is tuned or measured, and is loaded anyway.
    """
    for name in names:
        repository.model(name)
        if [model.name for model in models] == [name]:
            raise JobError(
                f"--load-model {name}: this is the model itself; name a model that it calls, or leave it out"
            )
