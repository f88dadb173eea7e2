"""What the models of a server were before candidates took their place, in a file that outlives a kill."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tuner.core.atomic_file import write_atomically
from tuner.core.errors import JobError


class OwnConfigs:
    """The models that a run has touched, until each has its own config back.

    Args:
        file: Of the run.
        address: Of the server; what the file says of another one is not ours to give back.
    """

    def __init__(self, file: Path, address: str) -> None:
        self._file = file
        self._address = address

    def kept(self) -> Mapping[str, str | None]:
        """The effective config of each, as text; None: it was not loaded.

        Raises:
            JobError: the file is damaged.
        """
        try:
            told = json.loads(self._file.read_text(encoding="utf-8"))
            return dict(told["models"]) if told["address"] == self._address else {}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, KeyError) as error:
            way_out = "unload and reload the tuned models on the server, then remove this file"
            raise JobError(f"{self._file}: is damaged; {way_out}") from error

    def keep(self, models: Mapping[str, str | None]) -> None:
        """Write them down in the place of what was there, or forget them when there are none."""
        if not models:
            self._file.unlink(missing_ok=True)
            return
        write_atomically(self._file, json.dumps({"address": self._address, "models": models}))
