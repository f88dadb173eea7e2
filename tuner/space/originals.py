"""The user's own values at the places that a space names, besides the tuned model's config.pbtxt."""

from __future__ import annotations

from pathlib import Path

from tuner.config.patch import Patch, argument_name
from tuner.config.repository import CONFIG, ModelFolder
from tuner.core.errors import SpaceError, nearest
from tuner.options.environment import resolved
from tuner.options.groups import RemoteOptions, ServerOptions
from tuner.space.knowledge import named_parameters
from tuner.space.place import Place
from tuner.space.spec import SpaceSpec


def originals_of(spec: SpaceSpec, model: ModelFolder, options: ServerOptions) -> Patch:
    """The baseline's patch, without the model's config.

    Args:
        spec: The space.
        model: The tuned model, beside which other models lie.
        options: The user's arguments and variables.

    Raises:
        SpaceError: a model or a file that a parameter names does not exist, or is no text.
    """
    given = {argument_name(text): text for text in options.arguments}
    variables = resolved(options.env)
    files: dict[str, str] = {}
    server_args: dict[str, str | None] = {}
    env: dict[str, str | None] = {}
    for name, item in named_parameters(spec, "search space").items():
        place = Place.of(name, item)
        if place.own_field:
            continue
        if place.server_arg:
            text = given.get(place.server_arg)
            server_args[place.server_arg] = None if text is None else text[len(place.server_arg) + 1 :]
        elif place.env:
            env[place.env] = variables.get(place.env)
        else:
            path = place.path(model.name)
            files[path] = _read(model.path.parent, path, name)
    return Patch(files=files, server_args=server_args, env=env)


def _read(repository: Path, path: str, name: str) -> str:
    owner, _, within = path.partition("/")
    folder = repository / owner
    if not folder.is_dir():
        others = [other.name for other in repository.iterdir() if other.is_dir()]
        raise SpaceError(f"search space: {name}: no model {owner!r} in the repository{nearest(owner, others)}")
    try:
        return (folder / within).read_bytes().decode()
    except FileNotFoundError:
        if within == CONFIG:
            return ""
        there = [str(file.relative_to(folder)) for file in folder.rglob("*") if file.suffix == Path(within).suffix]
        what = f"model {owner!r} has no file {within!r}{nearest(within, there)}"
        raise SpaceError(f"search space: {name}: {what}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SpaceError(f"search space: {name}: {owner}/{within}: cannot be read: {reason}") from None


def check_reachable(spec: SpaceSpec, job: RemoteOptions) -> None:
    """Check that a running server is not asked for what only its start can change.

    Raises:
        SpaceError: a parameter is an argument, a variable or a file, and the server runs elsewhere.
    """
    if job.url is None:
        return
    for name, item in named_parameters(spec, "search space").items():
        what = "arguments" if item.server_arg else "environment" if item.env else "files" if item.file else ""
        if what:
            raise SpaceError(
                f"--space: {name}: the {what} of the Triton at --url cannot be changed from here, only configs; "
                "leave the parameter out, or let tritontune start the server"
            )
