"""The nightly job file, and its JSON schema for editors."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic.json_schema import GenerateJsonSchema
from typing_extensions import Self

from tuner.core.errors import JobError
from tuner.core.quantities import parse_share
from tuner.core.redaction import keep_secret
from tuner.core.yaml_files import read_yaml
from tuner.nightly.secrets import expanded
from tuner.options.groups import Options, Positive, Repository, Seconds
from tuner.options.tune_job import TuneJob

Action = Literal["propose", "apply", "command"]

_EXAMPLE = "`jobs: [{repository: models, model: mlp, slo: {p99: 40ms}}]`"

SCHEMA_FILE = "jobs.schema.json"
"""Name of the shipped JSON schema of job files, beside this file."""


def _secret(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    value = expanded(value)
    with suppress(ValueError):  # _web_address reports a wrong address
        keep_secret("password", urlsplit(value).password or "")
    return value


def _web_address(value: SecretStr) -> SecretStr:
    parts = urlsplit(value.get_secret_value())
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("is not a URL; write https://HOST/... or http://HOST/...")
    # The URL is a secret, since everyone who knows it can post to it.
    keep_secret("secret", value.get_secret_value())
    return value


def _words(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError(f"must be a list of program and arguments: [{', '.join(value.split())}]")  # noqa: TRY004 (pydantic wants ValueError)
    return value


Share = Annotated[float, BeforeValidator(parse_share, json_schema_input_type=float | str)]
Secret = Annotated[SecretStr, BeforeValidator(_secret, json_schema_input_type=str)]


class Notify(Options):
    """A target of the night's report: one of webhook, slack and file."""

    webhook: Secret | None = Field(
        None,
        description=(
            "URL that receives the night's report as JSON by POST, without redirects. "
            "${NAME} is an environment variable."
        ),
    )
    slack: Secret | None = Field(
        None,
        description=(
            "URL of a Slack incoming webhook, or of one that takes its format. It receives one line for each model. "
            "${NAME} is an environment variable."
        ),
    )
    file: Path | None = Field(None, description="File that receives the night's report as one line of JSON.")

    @field_validator("webhook", "slack")
    @classmethod
    def _is_web(cls, value: SecretStr | None) -> SecretStr | None:
        return value and _web_address(value)

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if sum(target is not None for target in (self.webhook, self.slack, self.file)) != 1:
            raise ValueError("each entry must have exactly one of webhook, slack and file")
        return self

    @property
    def url(self) -> str | None:
        """The URL with its secrets; None for a file."""
        address = self.webhook or self.slack
        return address.get_secret_value() if address else None


class NightlyJob(TuneJob):
    """A job of the nightly job file: the options of `tritontune run`, and the action on an improvement."""

    repository: Repository | None = Field(
        None, description="Model repository, whose config.pbtxt files are the deployed ones."
    )
    budget: Seconds = Field(
        600.0,
        description=(
            "Time for tuning each model. Comparing the result with the deployed config takes about half of it more."
        ),
    )
    action: Action = Field(
        "propose",
        description=(
            "What to do with an improvement: propose writes it to proposed/ in the work folder, apply replaces the "
            "deployed config.pbtxt, command runs a program."
        ),
    )
    command: Annotated[tuple[str, ...], BeforeValidator(_words, json_schema_input_type=list[str])] = Field(
        (),
        description=(
            "Program to run, with its arguments, as a list. It receives the diff on stdin and the rest in "
            "TRITONTUNE_... variables."
        ),
    )
    command_timeout: Seconds = Field(300.0, description="Time that the program may take.")
    min_gain: Share | None = Field(
        None, description="Smallest gain to act on: the gain's lower bound must exceed it. Default: the file's."
    )
    min_regression: Share | None = Field(None, description="Smallest slowdown to report. Default: the file's.")

    def tuning(self, *, budget: float, warm_start: Path | None) -> TuneJob:
        """The tuning job of tonight.

        Args:
            budget: Time for tuning each model, in s.
            warm_start: The folder of the run to begin from; None: no warm start.
        """
        options = {name: getattr(self, name) for name in TuneJob.model_fields}
        # Options with default values must not count as given: some are refused where they have no effect.
        given = (self.model_fields_set & options.keys()) | {"budget", "warm_start"}
        return TuneJob.model_construct(given, **{**options, "budget": budget, "warm_start": warm_start})

    @model_validator(mode="after")
    def _check_night(self) -> Self:
        if self.repository is None:
            raise ValueError("repository is missing")
        if (self.action == "command") != bool(self.command):
            if self.command:
                raise ValueError("`command` needs `action: command`")
            raise ValueError("`action: command` needs `command: [program, argument]`")
        return self


class JobsFile(Options):
    """A nightly job file."""

    jobs: Annotated[tuple[NightlyJob, ...], Field(min_length=1)] = Field(
        description="Models to keep tuned, one job after the other."
    )
    window: Seconds = Field(
        8 * 3600.0, description="Time for the whole night. Jobs that would exceed it are shortened or left out."
    )
    min_gain: Share = Field(
        0.03, description="Smallest gain to act on, such as 3%: the gain's lower bound must exceed it."
    )
    min_regression: Share = Field(0.10, description="Smallest slowdown to report, such as 10%.")
    history: Secret | None = Field(
        None,
        description=(
            "Database of all measurements: a SQLite file or a postgresql:// URL, in which ${NAME} is an environment "
            "variable. Default: history.db in the work folder."
        ),
    )
    notify: tuple[Notify, ...] = Field((), description="Where to report how the night went.")
    prometheus: Path | None = Field(
        None, description="File for node_exporter's textfile collector, in its folder; ends in .prom."
    )
    work: Path = Field(Path("tritontune-nightly"), description="Folder for everything that the nights write.")
    keep_nights: Positive = Field(14, description="Number of nights whose folders are kept. The history keeps all.")

    @field_validator("prometheus")
    @classmethod
    def _is_collected(cls, value: Path | None) -> Path | None:
        if value is not None and value.suffix != ".prom":
            raise ValueError(f"{value} must end in .prom, or the textfile collector ignores it")
        return value

    @property
    def history_url(self) -> str:
        """The history's file or URL, with its secrets."""
        return self.history.get_secret_value() if self.history else str(self.work / "history.db")

    def min_gain_of(self, job: NightlyJob) -> float:
        """The smallest gain to act on, as a share: the job's value, else the file's."""
        return self.min_gain if job.min_gain is None else job.min_gain

    def min_regression_of(self, job: NightlyJob) -> float:
        """The smallest slowdown to report, as a share: the job's value, else the file's."""
        return self.min_regression if job.min_regression is None else job.min_regression

    @classmethod
    def read(cls, path: Path) -> JobsFile:
        """Read a job file.

        Raises:
            JobError: the file cannot be read, or is wrong; the message is one line with the place.
        """
        content = _mapping(path)
        jobs = content.get("jobs")
        if isinstance(jobs, list):
            content["jobs"] = tuple(
                NightlyJob.make(_entry(job, f"{path}: jobs[{number}]"), source=f"{path}: jobs[{number}]")
                for number, job in enumerate(jobs)
            )
        notify = content.get("notify")
        if isinstance(notify, list):
            content["notify"] = tuple(
                Notify.make(_entry(entry, f"{path}: notify[{number}]"), source=f"{path}: notify[{number}]")
                for number, entry in enumerate(notify)
            )
        if "jobs" in content and (not isinstance(jobs, list) or not jobs):
            raise JobError(f"{path}: jobs: must be a list of at least one job, such as {_EXAMPLE}")
        return cls.make(content, source=str(path))


def _mapping(path: Path) -> dict[str, Any]:
    content = read_yaml(path)
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise JobError(f"{path}: a nightly job file must be a mapping, such as {_EXAMPLE}")
    return dict(content)


def _entry(entry: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(entry, dict) or not all(isinstance(key, str) for key in entry):
        raise JobError(f"{where}: must be a mapping of options, such as `repository: models`")
    return entry


class _WithoutTitles(GenerateJsonSchema):
    """Leaves out the titles of fields, which repeat their names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """See `GenerateJsonSchema`."""
        del schema
        return False


def jobs_schema() -> dict[str, Any]:
    """The JSON schema, with descriptions, and with defaults in the form of a job file."""
    schema = JobsFile.model_json_schema(schema_generator=_WithoutTitles)
    definitions = schema["$defs"]
    for model, part in ((JobsFile, schema), (NightlyJob, definitions["NightlyJob"]), (Notify, definitions["Notify"])):
        for name, default in model.defaults().items():
            part["properties"][name]["default"] = default
    definitions["NightlyJob"]["required"] = ["repository"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "tritontune nightly job file",
    }
