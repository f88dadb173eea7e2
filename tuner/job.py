"""Everything that was asked, validated once. The command line, a job file and Python all end here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError
from pydantic_core import ErrorDetails

from tuner.errors import JobError, nearest
from tuner.quantities import parse_duration
from tuner.slo import SLO


def _seconds(value: Any) -> Any:
    return parse_duration(value) if isinstance(value, str) else value


def _names(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _shapes(value: Any) -> Any:
    if isinstance(value, Mapping):
        return value
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, Sequence):
        raise ValueError("shapes are written as {NAME: [D1, D2]} or NAME:D1,D2")  # noqa: TRY004 (pydantic wants ValueError)
    pairs = [parse_shape(text) for text in texts]
    if twice := {name for name, _ in pairs if [n for n, _ in pairs].count(name) > 1}:
        raise ValueError(f"the shape of {min(twice)!r} is given twice")
    return dict(pairs)


Seconds = Annotated[
    float,
    BeforeValidator(_seconds),
    Field(gt=0, allow_inf_nan=False),
    PlainSerializer(lambda seconds: f"{seconds:g}s", return_type=str),
]
ServerKind = Literal["auto", "process", "docker"]


class TuneJob(BaseModel):
    """What to tune, how, and for how long. Durations read `90s`, `10m`; a plain number is seconds.

    Attributes:
        repository: The model repository.
        model: The models to tune; none: every model of the repository that can be.
        slo: Latency limits that the best config must hold.
        budget: Seconds that the tuning of one model may take.
        trials: Candidates to launch, the baseline included; None: as the budget allows. Verifying launches some again.
        server: How to get a Triton: `docker`, `process`, or `auto`: Docker where it can be used with `image`.
        image: The Triton image for Docker.
        triton_path: A `tritonserver`, or the folder of an installation that has one in `bin/`.
        space: A search space that ships with tritontune, by name, or a YAML file.
        shape: Dimensions for inputs of variable shape, by input, without the batch dimension.
        max_concurrency: The highest load to offer.
        launch_timeout: Seconds within which a model must be ready; None: by its size, and by what it took at first.
        seed: Of every random choice.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    repository: Path
    model: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    slo: SLO = SLO()
    budget: Seconds = 600.0
    trials: Annotated[int, Field(ge=1)] | None = None
    server: ServerKind = "auto"
    image: str | None = None
    triton_path: Path | None = None
    space: str = "default"
    shape: Annotated[Mapping[str, tuple[Annotated[int, Field(ge=1)], ...]], BeforeValidator(_shapes)] = {}
    max_concurrency: Annotated[int, Field(ge=1, le=65536)] = 1024
    launch_timeout: Seconds | None = None
    seed: Annotated[int, Field(ge=0)] = 0

    @classmethod
    def make(cls, options: Mapping[str, Any], *, source: str = "") -> TuneJob:
        """Build a job of options by their names.

        Args:
            options: As the attributes are named; values may be the texts that a person writes.
            source: Where they come from, to begin an error with; empty for the command line, whose options
                are then named with their dashes.

        Raises:
            JobError: one line that names the option and what would be right.
        """
        try:
            return cls.model_validate(options)
        except ValidationError as error:
            raise JobError(_one_line(error, source)) from None

    @classmethod
    def read(cls, path: Path, overrides: Mapping[str, Any] | None = None) -> TuneJob:
        """Read a job file; `overrides` (the command line) win over it, by option.

        Raises:
            JobError: the file cannot be read, is no YAML mapping, or asks for what cannot be done.
        """
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise JobError(f"{path}: cannot be read: {reason}") from None
        except yaml.YAMLError as error:
            raise JobError(f"{path}{yaml_fault(error)}") from None
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            raise JobError(f"{path}: a job file is a mapping, such as `repository: models` and `slo: {{p99: 25ms}}`")
        return cls.make({**content, **(overrides or {})}, source=str(path))


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Read `NAME:D1,D2` (the name may hold colons).

    Raises:
        ValueError: one line that says what would be right.
    """
    name, colon, dims = str(text).rpartition(":")
    try:
        shape = tuple(int(dim) for dim in dims.split(","))
    except ValueError:
        shape = ()
    if not colon or not name or not shape or min(shape) < 1:
        raise ValueError(f"{text!r} is no shape; write it as NAME:D1,D2 with dimensions of 1 and more")
    return name, shape


def yaml_fault(error: yaml.YAMLError) -> str:
    """Where and what is wrong in a YAML file, as `:LINE:COLUMN: problem`, to stand behind its path."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f":{mark.line + 1}:{mark.column + 1}: {error.problem or 'not valid YAML'}"
    return ": not valid YAML"


def most_telling(error: ValidationError) -> ErrorDetails:
    """The one fault to name: a name that is not known comes before what is then missing."""
    faults = error.errors(include_url=False)
    return next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])


def _one_line(error: ValidationError, source: str) -> str:
    """The first fault of a job, in the words of whoever wrote it."""
    fault = most_telling(error)
    option = str(fault["loc"][0])
    where = f"{source}: {option}" if source else "--" + option.replace("_", "-")
    if fault["type"] == "extra_forbidden":
        return f"{where} is no option{nearest(option, TuneJob.model_fields)}"
    if fault["type"] == "missing":
        return f"{where} is missing"
    reason = fault["msg"].removeprefix("Value error, ")
    quoted = "" if fault["type"] == "value_error" else f" (it is {fault['input']!r})"
    return f"{where}: {reason[:1].lower() if not quoted else reason[:1]}{reason[1:]}{quoted}"
