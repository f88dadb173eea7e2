"""A tuning job, from the command line, a job file or Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import Self

from tuner.core.errors import JobError
from tuner.core.objectives import MAXIMIZED, Maximized, Objective
from tuner.core.precision import Precision
from tuner.core.quantities import parse_share
from tuner.core.slo import LATENCY, PERCENTILES, SLO, Statistic
from tuner.core.yaml_files import read_yaml
from tuner.options.groups import (
    Bytes,
    Limits,
    LoadOptions,
    Name,
    Precise,
    Rate,
    RemoteOptions,
    Repository,
    Seconds,
    ServerOptions,
    Texts,
    names,
)
from tuner.options.placement import PlacementOptions

SamplerName = Literal["twin", "tpe", "gp", "random", "grid"]

# Options of the command line that are not part of a job.
_ON_THE_COMMAND_LINE = {"job", "out", "resume"}


def _minimized(value: Any) -> Any:
    """The name of a latency percentile to minimize."""
    if value in MAXIMIZED:
        raise ValueError(f"{value} is maximized: write --maximize {value}")
    return f"{LATENCY.name}.{Statistic.parse(value).percentile}" if isinstance(value, str) else value


def _tolerance(value: Any) -> float | None:
    if value is None or value == "off":
        return None
    try:
        return parse_share(value)
    except ValueError:
        raise ValueError(
            f"{value!r} is not a tolerance; write a share below 1, such as 0.001 or 0.1%, 0 for no difference, or off"
        ) from None


Quickened = Annotated[
    str, Field(json_schema_extra={"enum": [f"{LATENCY.name}.{percentile}" for percentile in PERCENTILES]})
]


class TuneJob(LoadOptions, ServerOptions, RemoteOptions, PlacementOptions):
    """A tuning job: the models, the SLO, the budget, and the options of the search.

    Options of the server are in `ServerOptions` and `RemoteOptions`, options of requests in `LoadOptions`, and where
    trials run in `PlacementOptions`.
    """

    repository: Repository | None = Field(
        None, description="Model repository. Default: the repository of the running Triton, if it reports one."
    )
    model: Annotated[tuple[str, ...], BeforeValidator(names, json_schema_input_type=Texts)] = Field(
        (), description="Model to tune. Default: every model of the repository that can be tuned."
    )
    slo: Limits = Field(SLO(), description="Latency limit of the best configuration: p50, p90, p95 or p99, and a time.")
    maximize: Maximized = Field(
        "throughput",
        description=(
            "Objective within the SLO: throughput (inferences/s), throughput_per_gpu, "
            "or inferences_per_joule (energy of the GPUs in use)."
        ),
    )
    minimize: Annotated[str | None, BeforeValidator(_minimized, json_schema_input_type=Quickened)] = Field(
        None,
        description="Latency to minimize at the request rate --rate instead, such as latency.p99.",
    )
    rate: Rate | None = Field(
        None,
        description="Request rate (requests/s, Poisson arrivals) at which --minimize compares configurations.",
    )
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
    space: str = Field(
        "auto",
        description=(
            "Search space: auto (scheduling, and what the model's backend gains most from), default (scheduling), "
            "latency, or a file."
        ),
    )
    allow_numerics: bool = Field(
        default=False,
        description=(
            "Also search values that may change what the model answers, such as FP16. "
            "The largest difference of the outputs is reported."
        ),
    )
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
        if self.minimize is not None and "maximize" in self.model_fields_set:
            raise ValueError("--maximize and --minimize cannot be used together")
        if self.minimize is not None and self.rate is None:
            raise ValueError(f"--minimize {self.minimize}: needs --rate, the request rate that must be held")
        if self.rate is not None and self.minimize is None:
            raise ValueError("--rate needs --minimize, such as --minimize latency.p99")
        if self.minimize is not None and "max_concurrency" in self.model_fields_set:
            raise ValueError("--max-concurrency cannot be used with --minimize: the load is --rate")
        return self

    @property
    def objective(self) -> Objective:
        """The objective of the search."""
        if self.minimize is None or self.rate is None:
            return Objective(metric=self.maximize)
        return Objective.quickest(Statistic.parse(self.minimize), self.rate)

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
