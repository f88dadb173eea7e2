"""Options that say where trials run: on slots of this machine, or of a Ray cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import Self

from tuner.options.groups import Name, Options, Positive, as_option

ExecutorName = Literal["local", "ray"]
AUTO = "auto"
"""The value of `parallel` for as many trials as there are slots."""

FOR_RAY = ("ray_address", "mixed", "repository_on_hosts")
"""Options that only Ray supports."""

MOST_SLOTS = 4096
"""More than any cluster has; a larger number is a mistake."""


def _parallel(value: Any) -> Any:
    text = value.strip() if isinstance(value, str) else value
    if text == AUTO:
        return AUTO
    try:
        number = int(text) if isinstance(text, str) else text
    except ValueError:
        number = None
    if not isinstance(number, int) or isinstance(number, bool):
        raise ValueError(f"{value!r} is not a number of trials; write 1 or more, or {AUTO}")  # noqa: TRY004 (pydantic wants ValueError)
    if not 1 <= number <= MOST_SLOTS:
        raise ValueError(f"must be >= 1 and <= {MOST_SLOTS}, got {number}")
    return number


def _on_hosts(value: Any) -> Any:
    if isinstance(value, str | Path) and not Path(value).is_absolute():
        raise ValueError(f"{str(value)!r} is not an absolute path, which each host needs")
    return value


class PlacementOptions(Options):
    """Options that say where trials run, and how many at a time."""

    executor: ExecutorName = Field(
        "local", description="What carries out trials: local (this machine), or ray (the hosts of a Ray cluster)."
    )
    parallel: Annotated[
        int | Literal["auto"], BeforeValidator(_parallel, json_schema_input_type=int | Literal["auto"])
    ] = Field(1, description="Number of trials at a time, each in a slot of its own (GPUs or cores); auto: all slots.")
    ray_address: Name | None = Field(
        None,
        description="Address of the Ray cluster, HOST:PORT. Default: RAY_ADDRESS, else the cluster of this machine.",
    )
    cores_per_slot: Positive | None = Field(
        None,
        description=(
            "CPU cores of each slot's server; the load generator gets others. Default: the host's cores, shared "
            "equally."
        ),
    )
    gpus_per_slot: Positive | None = Field(
        None, description="GPUs of each slot. Default: 1 if there are several slots."
    )
    mixed: bool = Field(
        default=False,
        description=(
            "Also use hosts that differ from the first one. Their results are compared only among hosts of one kind."
        ),
    )
    repository_on_hosts: Annotated[Path, BeforeValidator(_on_hosts, json_schema_input_type=str)] | None = Field(
        None,
        description="Path at which each host has the same model repository. Default: the repository is sent to them.",
    )

    @model_validator(mode="after")
    def _check_placement(self) -> Self:
        if getattr(self, "url", None) is not None:
            asked = [name for name in PlacementOptions.model_fields if _is_asked(self, name)]
            if asked:
                raise ValueError(f"{_shown(self, asked[0])} cannot be used with --url: that server runs already")
        if self.executor != "ray":
            for name in FOR_RAY:
                if _is_asked(self, name):
                    raise ValueError(f"{as_option(name)} needs --executor ray")
        if self.gpus_per_slot is not None and getattr(self, "gpus", None) == "none":
            raise ValueError("--gpus-per-slot cannot be used with --gpus none")
        return self

    def in_one_process(self) -> Self:
        """The same options, with launches carried out one at a time, in this process."""
        return self.model_copy(update={name: f.default for name, f in PlacementOptions.model_fields.items()})

    @property
    def has_slots(self) -> bool:
        """Whether trials run in slots. If not, one at a time runs in this process, with the whole machine."""
        return any(_is_asked(self, name) for name in ("executor", "parallel", "cores_per_slot", "gpus_per_slot"))


def _is_asked(options: PlacementOptions, name: str) -> bool:
    return bool(getattr(options, name) != PlacementOptions.model_fields[name].default)


def _shown(options: PlacementOptions, name: str) -> str:
    """An option for a message; a switch and a path without their values."""
    value = getattr(options, name)
    return as_option(name) if isinstance(value, bool | Path) else f"{as_option(name)} {value}"
