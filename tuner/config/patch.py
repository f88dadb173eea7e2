"""A patch: everything that a candidate sets, as texts of files, server arguments and environment variables."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from tuner.config.repository import CONFIG
from tuner.core.atomic_file import write_atomically
from tuner.core.record import Record


class Patch(Record):
    """The files and settings that a server is launched with.

    The baseline's patch holds the user's own values at the places that candidates change, so all patches of a study
    have the same keys.

    Attributes:
        config: The text of the tuned model's config.pbtxt; empty: it has none.
        files: The texts of further files, by path in the repository: `encoder/config.pbtxt`, `mlp/1/model.json`.
        server_args: Values of arguments of `tritonserver`, by name; None: without the argument. An empty value is for a
            flag without a value. They replace the user's arguments of the same names.
        env: Values of environment variables, by name; None: as the user has set it.
    """

    config: str = ""
    files: Mapping[str, str] = {}
    server_args: Mapping[str, str | None] = {}
    env: Mapping[str, str | None] = {}

    @property
    def beyond_config(self) -> str:
        """A hash of everything but `config`; empty: there is nothing else."""
        # Without an argument is the same, whether the patch says so or not.
        settings = ({name: v for name, v in values.items() if v is not None} for values in (self.server_args, self.env))
        rest = [dict(self.files), *settings]
        if not any(rest):
            return ""
        return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()

    def with_config(self, text: str) -> Patch:
        """The patch with another text of the tuned model's config.pbtxt."""
        return self.model_copy(update={"config": text})

    def changed_from(self, before: Patch) -> Patch:
        """The patch with only those files, arguments and variables that differ from those of another patch."""
        return Patch(
            config=self.config,
            files={path: text for path, text in self.files.items() if before.files.get(path) != text},
            server_args={n: v for n, v in self.server_args.items() if before.server_args.get(n) != v},
            env={name: value for name, value in self.env.items() if before.env.get(name) != value},
        )

    def arguments(self, given: tuple[str, ...]) -> tuple[str, ...]:
        """The arguments of `tritonserver`: those given by the user, except for those that the patch sets, and these.

        Args:
            given: The user's arguments, each `--name=value` or `--name`.
        """
        kept = (text for text in given if argument_name(text) not in self.server_args)
        ours = (f"{name}={value}" if value else name for name, value in self.server_args.items() if value is not None)
        return (*kept, *ours)

    def settings_in_words(self) -> list[str]:
        """What to set beside the files to deploy the patch, one line each."""
        without = (name for name, value in self.server_args.items() if value is None)
        return [
            *(f"start tritonserver with {argument}" for argument in self.arguments(())),
            *(f"start tritonserver without {name}" for name in without),
            *(f"set the environment variable {name}={value}" for name, value in self.variables().items()),
        ]

    def variables(self) -> dict[str, str]:
        """The environment variables that the patch sets."""
        return {name: value for name, value in self.env.items() if value is not None}


NO_CHANGES = Patch()
"""A patch that sets nothing."""


SERVER_ARGS, ENV = "server.args", "server.env"
"""Files of a written patch: an argument of `tritonserver` in each line, and a variable in each line (`NAME=value`)."""
OTHER_MODELS = "other_models"
"""Folder of a written patch with the files of other models than the tuned one."""


def written_path(model: str, path: str) -> str:
    """The path of a file in a written patch of a model, by its path in the repository."""
    owner, _, within = path.partition("/")
    return within if owner == model else f"{OTHER_MODELS}/{path}"


def patch_files(model: str, patch: Patch) -> dict[str, str]:
    """The files of a patch by path: those of the tuned model as in its folder, others below `other_models`.

    Args:
        model: The tuned model.
        patch: The patch.
    """
    files = {CONFIG: patch.config}
    files |= {written_path(model, path): text for path, text in patch.files.items()}
    if arguments := patch.arguments(()):
        files[SERVER_ARGS] = "".join(f"{argument}\n" for argument in arguments)
    if variables := patch.variables():
        files[ENV] = "".join(f"{name}={value}\n" for name, value in variables.items())
    return files


def write_patch(folder: Path, model: str, patch: Patch) -> None:
    """Write the files of a patch into a folder; see `patch_files`."""
    for name, text in patch_files(model, patch).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, text)


def argument_value(text: str) -> str:
    """The value of an argument of `tritonserver`; empty for a flag without one. See `argument_name`."""
    return text[len(argument_name(text)) :].removeprefix("=")


def argument_name(text: str) -> str:
    """The name of an argument of `tritonserver`.

    An argument that sets one of several settings has the name of the setting: `--backend-config=python,stub-timeout`
    for `--backend-config=python,stub-timeout=60`.
    """
    flag, _, value = text.partition("=")
    setting, equals, _ = value.partition("=")
    return f"{flag}={setting}" if equals and "," in setting else flag
