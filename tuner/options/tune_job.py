"""What to tune, how, and for how long. The command line, a job file and Python all end here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import Self

from tuner.core.errors import JobError
from tuner.core.precision import Precision
from tuner.core.slo import SLO
from tuner.core.yaml_files import read_yaml
from tuner.options.groups import (
    Bytes,
    LoadOptions,
    Name,
    Precise,
    RemoteOptions,
    Repository,
    Seconds,
    ServerOptions,
    names,
)

SamplerName = Literal["twin", "tpe", "gp", "random", "grid"]

# What says how a job is run, and not what is asked.
_ON_THE_COMMAND_LINE = {"job", "out", "resume"}


def _share(text: str) -> float:
    """Of `0.001` or `0.1%`."""
    return float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)


def _tolerance(value: Any) -> Any:
    # YAML reads `off` as false.
    if value is False or value == "off":
        return None
    try:
        share = _share(value) if isinstance(value, str) else value
    except ValueError:
        share = math.nan
    if isinstance(share, bool) or (isinstance(share, int | float) and not 0 <= share < 1):
        raise ValueError(
            f"{value!r} is no tolerance; write a share below 1, as 0.001 or 0.1%, 0 for no difference, or off"
        )
    return share


class TuneJob(LoadOptions, ServerOptions, RemoteOptions):
    """What to tune, how, and for how long. Durations read `90s`, `10m`; a plain number is seconds.

    How to get a Triton is in `ServerOptions` and `RemoteOptions`, and what requests are made of in `LoadOptions`.

    Attributes:
        repository: The model repository; None: that of the server at `url`, as far as it tells.
        model: The models to tune; none: every model of the repository that can be.
        slo: Latency limits that the best config must hold.
        budget: Seconds that the tuning of one model may take.
        trials: Candidates to launch, the baseline included; None: as the budget allows. Verifying launches some again.
        sampler: Who proposes candidates: `twin`, a simulation of Triton's scheduler, fitted to what was measured; `tpe`
            or `gp`, Optuna's; `random`; or `grid`, all of a small space.
        warm_start: The folder of an earlier run: what it measured under the same conditions counts as if this one had,
            and else its best candidates are launched first; None: begin from nothing.
        space: A search space that ships with tritontune, by name, or a YAML file.
        max_concurrency: The highest load to offer.
        precision: Of what is reported; the search makes do with less.
        isolation: Whether each candidate has a server of its own (`relaunch`), or one loads all in turn (`reload`, and
            always so at a `url`); None: relaunch, where that can be.
        verify: Whether what is best is measured again, and certified; else the search has all of the budget, and what
            is reported are the numbers that the best was chosen by.
        metrics_url: Where the server at `url` tells of its GPUs; None: Triton's own port on that host.
        explain: Whether to leave out each change of the best config once, and measure what that does: a launch for
            each of which no trial tells, on top of `budget` and `trials`.
        max_gpu_memory: Bytes that the best config's server may take of each GPU; None: all that there is.
        output_tolerance: By what share floats of a candidate's outputs may differ from those of the config as it is
            (see `Tolerance`); what is no float must be equal. None, or `off`: outputs are not compared.
    """

    repository: Repository | None = None
    model: Annotated[tuple[str, ...], BeforeValidator(names)] = ()
    slo: SLO = SLO()
    budget: Seconds = 600.0
    trials: Annotated[int, Field(ge=1)] | None = None
    sampler: SamplerName = "twin"
    warm_start: Path | None = None
    space: str = "default"
    max_concurrency: Annotated[int, Field(ge=1, le=65536)] = 1024
    precision: Precise = Precision()
    isolation: Literal["relaunch", "reload"] | None = None
    explain: bool = False
    verify: bool = True
    metrics_url: Name | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.repository is None and self.url is None:
            raise ValueError(
                "there is neither a model repository to tune (MODEL_REPO) nor the --url of a Triton that runs"
            )
        if self.url is not None and self.isolation == "relaunch":
            raise ValueError("--isolation relaunch: the server at a --url is not ours to launch again")
        if self.url is None and self.metrics_url is not None:
            raise ValueError("--metrics-url is for a server at a --url")
        return self

    max_gpu_memory: Bytes | None = None
    output_tolerance: Annotated[float | None, BeforeValidator(_tolerance)] = 1e-3

    @classmethod
    def read(cls, path: Path, overrides: Mapping[str, Any] | None = None) -> TuneJob:
        """Read a job file; `overrides` (the command line) win over it, by option.

        Raises:
            JobError: the file cannot be read, is no YAML mapping, or asks for what cannot be done.
        """
        return cls.make({**cls.options_in(path), **(overrides or {})}, source=str(path))

    @classmethod
    def options_in(cls, path: Path) -> dict[str, Any]:
        """The options of a job file, as they are written there.

        Raises:
            JobError: the file cannot be read, or is no YAML mapping of options.
        """
        content = read_yaml(path)
        if isinstance(content, dict) and (misplaced := sorted(_ON_THE_COMMAND_LINE & content.keys())):
            raise JobError(f"{path}: {misplaced[0]} is for the command line; give --{misplaced[0]} there")
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            raise JobError(f"{path}: a job file is a mapping, such as `repository: models` and `slo: {{p99: 25ms}}`")
        return content
