"""A tuning job, from the command line, a job file or Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import Self

from tuner.core.errors import JobError
from tuner.core.precision import Precision
from tuner.core.quantities import parse_share
from tuner.core.slo import SLO
from tuner.core.yaml_files import read_yaml
from tuner.options.groups import (
    Bytes,
    Limits,
    LoadOptions,
    Name,
    Precise,
    RemoteOptions,
    Repository,
    Seconds,
    ServerOptions,
    Texts,
    names,
)

SamplerName = Literal["twin", "tpe", "gp", "random", "grid"]

# Options of the command line that are not part of a job.
_ON_THE_COMMAND_LINE = {"job", "out", "resume"}


def _tolerance(value: Any) -> float | None:
    if value is None or value == "off":
        return None
    try:
        return parse_share(value)
    except ValueError:
        raise ValueError(
            f"{value!r} is not a tolerance; write a share below 1, such as 0.001 or 0.1%, 0 for no difference, or off"
        ) from None


class TuneJob(LoadOptions, ServerOptions, RemoteOptions):
    """A tuning job: the models, the SLO, the budget, and the options of the search.

    Options of the server are in `ServerOptions` and `RemoteOptions`, and options of requests in `LoadOptions`.
    """

    repository: Repository | None = Field(
        None, description="Model repository. Default: the repository of the running Triton, if it reports one."
    )
    model: Annotated[tuple[str, ...], BeforeValidator(names, json_schema_input_type=Texts)] = Field(
        (), description="Model to tune. Default: every model of the repository that can be tuned."
    )
    slo: Limits = Field(SLO(), description="Latency limit of the best configuration: p50, p90, p95 or p99, and a time.")
    budget: Seconds = Field(600.0, description="Time for tuning each model, verification included.")
    trials: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Number of candidates to try, including the baseline. Default: as many as the budget allows."
    )
    sampler: SamplerName = Field(
        "twin",
        description=(
            "What proposes candidates: twin (a simulator of Triton's scheduler), tpe or gp (Optuna), random, "
            "or grid (all candidates)."
        ),
    )
    warm_start: Path | None = Field(
        None,
        description=(
            "Folder of an earlier run of the same models. Its trials count if conditions are equal; "
            "if not, its best candidates are tried first."
        ),
    )
    space: str = Field("default", description="Search space: the name of a shipped one (default, latency), or a file.")
    max_concurrency: Annotated[int, Field(ge=1, le=65536)] = Field(
        1024, description="Highest load to offer, in concurrent requests."
    )
    precision: Precise = Field(
        Precision(),
        description="Half widths of the 95 % intervals of throughput and of the SLO's latency percentile.",
    )
    isolation: Literal["relaunch", "reload"] | None = Field(
        None,
        description=(
            "relaunch: start a server for each candidate. reload: one server loads them in turn. "
            "Default: relaunch; reload for a running Triton."
        ),
    )
    explain: bool = Field(
        default=False,
        description=(
            "Measure the effect of each change of the best configuration by leaving it out; "
            "takes launches beyond the budget."
        ),
    )
    verify: bool = Field(
        default=True,
        description="Relaunch the finalists, and report the results of these launches. On by default.",
    )
    metrics_url: Name | None = Field(
        None, description="Metrics endpoint of the running Triton. Default: http://HOST:8002/metrics."
    )
    max_gpu_memory: Bytes | None = Field(
        None, description="Largest memory that the best configuration may use on each GPU. Default: no limit."
    )
    output_tolerance: Annotated[float | None, BeforeValidator(_tolerance, json_schema_input_type=float | str)] = Field(
        1e-3,
        description=(
            "Largest difference of floating-point outputs from the baseline's, as a share; off: do not compare outputs."
        ),
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.repository is None and self.url is None:
            raise ValueError("nothing to tune: give MODEL_REPO, or the --url of a running Triton")
        if self.url is not None and self.isolation == "relaunch":
            raise ValueError("--isolation relaunch: the server at --url cannot be relaunched")
        if self.url is None and self.metrics_url is not None:
            raise ValueError("--metrics-url needs --url")
        return self

    @classmethod
    def read(cls, path: Path, overrides: Mapping[str, Any] | None = None) -> TuneJob:
        """Read a job file; `overrides` (the command line) win over it, by option.

        Raises:
            JobError: the file cannot be read, is not a YAML mapping, or has an invalid option.
        """
        return cls.make({**cls.options_in(path), **(overrides or {})}, source=str(path))

    @classmethod
    def options_in(cls, path: Path) -> dict[str, Any]:
        """The options of a job file, before they are parsed.

        Raises:
            JobError: the file cannot be read, or is not a YAML mapping of options.
        """
        content = read_yaml(path)
        if isinstance(content, dict) and (misplaced := sorted(_ON_THE_COMMAND_LINE & content.keys())):
            raise JobError(f"{path}: {misplaced[0]} is an option of the command line only: --{misplaced[0]}")
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            raise JobError(
                f"{path}: a job file must be a mapping, such as `repository: models` and `slo: {{p99: 25ms}}`"
            )
        return content
