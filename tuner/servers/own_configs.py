"""Stores the own configs of a remote server's models, so that they can be restored after a killed run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tuner.core.atomic_file import write_atomically
from tuner.core.errors import JobError


class OwnConfigs:
    """The models that a run has changed and has not restored yet.

    Args:
        file: The file of the run.
        address: The server's address; entries for another server are ignored.
    """

    def __init__(self, file: Path, address: str) -> None:
        self._file = file
        self._address = address

    def kept(self) -> Mapping[str, str | None]:
        """The effective config of each model, as text; None: it was not loaded.

        Raises:
            JobError: the file is damaged.
        """
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            return dict(content["models"]) if content["address"] == self._address else {}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, KeyError) as error:
            way_out = "unload and reload the tuned models on the server, then remove this file"
            raise JobError(f"{self._file}: is damaged; {way_out}") from error

    def keep(self, models: Mapping[str, str | None]) -> None:
        """Replace the stored models; without models, remove the file."""
        if not models:
            self._file.unlink(missing_ok=True)
            return
        write_atomically(self._file, json.dumps({"address": self._address, "models": models}))
