"""The stored result of one trial: one candidate, launched once, measured under rising load. A failure is data."""

from __future__ import annotations

from collections.abc import Mapping

from typing_extensions import Self

from tuner.config.patch import NO_CHANGES, Patch
from tuner.core.record import Record
from tuner.measure.gpu_view import GpuMemory
from tuner.measure.points import OperatingPoint
from tuner.measure.sweep import in_order_of_load
from tuner.measure.work import Failure, Outcome
from tuner.space.candidate import Candidate
from tuner.space.spec import LadderValue


class TrialResult(Record):
    """The result of one trial.

    Attributes:
        number: Its number in the study; 0 is the baseline.
        parameters: The candidate's assignment; empty for the baseline.
        config: The text of the candidate's config.pbtxt.
        others: Its other files, arguments and variables.
        effective_config: The config as the server completed it; None if it never became ready.
        curve: Operating points in order of load.
        failure: Why the curve is missing or incomplete; None: no failure.
        launch_s: Seconds until the model was ready; None if it never was.
        first_answer_s: Seconds that the first answer took; None if there was none.
        wall_s: Seconds from launch to stop.
        gpu_memory: GPU memory that it took; None if it uses no GPU, or unknown.
        imported: Whether the result is from an earlier run, under the same conditions.
        output_difference: The largest difference of its outputs from the baseline's, of a candidate that may differ.
        host: The host that measured it; empty: the machine of the run, or an early version.
        after: Numbers of the trials that were finished when it was proposed; None: an early version.
        beside: Numbers of the trials that were under way then.
        elapsed_s: Seconds of the run since the trial before it was stored, where several run at a time; None: `wall_s`.
    """

    number: int
    parameters: Mapping[str, LadderValue]
    config: str
    effective_config: str | None
    curve: tuple[OperatingPoint, ...]
    failure: Failure | None
    launch_s: float | None
    first_answer_s: float | None
    wall_s: float
    gpu_memory: GpuMemory | None = None
    imported: bool = False
    others: Patch = NO_CHANGES
    output_difference: str = ""
    host: str = ""
    after: tuple[int, ...] | None = None
    beside: tuple[int, ...] = ()
    elapsed_s: float | None = None

    @classmethod
    def of(cls, candidate: Candidate, number: int, outcome: Outcome) -> Self:
        """The result of a candidate's launch.

        Args:
            candidate: The candidate.
            number: The number of its trial.
            outcome: The outcome of its launch; its points come in order of load.
        """
        return cls(
            number=number,
            parameters=candidate.parameters,
            config=candidate.config.text,
            others=candidate.others,
            effective_config=outcome.effective_config,
            curve=in_order_of_load(outcome.points),
            failure=outcome.failure,
            launch_s=outcome.launch_s,
            first_answer_s=outcome.first_answer_s,
            wall_s=outcome.wall_s,
            gpu_memory=outcome.gpu_memory,
            host=outcome.host,
        )

    @property
    def patch(self) -> Patch:
        """Everything that the candidate set."""
        return self.others.with_config(self.config)

    @property
    def deployable_config(self) -> str:
        """The config.pbtxt to deploy: the candidate's, or the effective config of a model without a file."""
        return self.config or self.effective_config or ""

    @property
    def deployable(self) -> Patch:
        """The patch to deploy."""
        return self.others.with_config(self.deployable_config)
