"""The models that a server loads beside the one that is measured, since that calls them (BLS)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from tuner.config.repository import ModelFolder, ModelRepository
from tuner.core.errors import JobError, ServerError, nearest
from tuner.servers.model_control import ModelControl
from tuner.servers.protocols import Server

# As Triton 2.51 says it to a model that calls one that is not loaded, and of one that it does not know.
_MISSING = re.compile(r"[Mm]odel:? '([^']+)' is not (?:ready|found)")


def missing_model(message: str) -> str | None:
    """The model of which an answer of Triton's says that it is not there."""
    found = _MISSING.search(message)
    return found[1] if found else None


class Callees:
    """What a model calls, as far as is known; Triton tells of one after the other, when it is called.

    Args:
        model: The one that calls.
        repository: Where the others are found; None: of a server that is not ours, on which nothing is loaded.
        names: Those that are known.
        note: Is told what was found.

    Attributes:
        names: To be loaded with each launch.
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
        """An error, with what would help where it says that a model is missing."""
        name = missing_model(str(error))
        if name is None or name == self._model or name in self.names:
            return error
        what = f"{error}; {self._model} calls {name}"
        hint = f"{what}: load {name} on the server"
        if self._repository is not None:
            hint = f"{what}, which is not in the repository{nearest(name, self._others())}"
        return ServerError(hint, cause=error.cause, last_words=error.last_words)

    def load_missing(self, error: ServerError, server: Server, *, within_s: float) -> None:
        """Load the model of which a failed request says that it is missing.

        Args:
            error: Why the request failed.
            server: That it was sent to.
            within_s: How long the model may take to load.

        Raises:
            ServerError: the same one, with a hint where the repository has no such model; or the model does not load.
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
    """See that the models of `--load-model` are there, and others than the only one that is tuned or measured.

    Raises:
        RepositoryError: there is no such model.
        JobError: it is loaded anyway.
    """
    for name in names:
        repository.model(name)
        if [model.name for model in models] == [name]:
            raise JobError(
                f"--load-model {name}: this is the model itself; name a model that it calls, or leave it out"
            )
