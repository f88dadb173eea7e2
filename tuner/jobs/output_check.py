"""Records the baseline's outputs, and checks that every candidate reproduces them.

The servers are asked where they run, by `ExamineBaseline` and `ExamineCandidate`. `OutputCheck` keeps what they found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from tuner.config.config import ModelConfig
from tuner.core.errors import Cause, OutputsDifferError, ServerError
from tuner.core.redaction import HIDDEN
from tuner.measure.session import Session
from tuner.options.groups import MADE_UP
from tuner.outputs.differences import Tolerance
from tuner.outputs.golden import GoldenOutputs, Unsteady, check_golden, record_golden
from tuner.outputs.golden_file import GoldenFileError, read_golden, write_golden
from tuner.search.proposals import ServedConfigs
from tuner.space.candidate import Candidate
from tuner.space.observed import served_otherwise
from tuner.space.space import SearchSpace
from tuner.study.study import Identity

GOLDEN_FILE = "golden_outputs.npz"


@dataclass(frozen=True)
class ExamineBaseline:
    """Records the outputs of the baseline.

    Attributes:
        tolerance: The tolerance of floats.
    """

    tolerance: Tolerance

    def __call__(self, session: Session) -> GoldenOutputs:
        """Record the golden outputs.

        Raises:
            ServerError: the baseline does not answer.
        """
        questions = session.questions()
        with session.asking() as ask:
            return record_golden(ask, questions, self.tolerance)


@dataclass(frozen=True)
class ExamineHost:
    """Checks that the baseline gives its golden outputs on another host.

    Attributes:
        golden: The golden outputs.
        tolerance: The tolerance of floats.
    """

    golden: GoldenOutputs
    tolerance: Tolerance

    def __call__(self, session: Session) -> Examined:
        """Check the server.

        Raises:
            ServerError: a check failed.
        """
        return compare_outputs(session, self.golden, self.tolerance, may_differ=False)


@dataclass(frozen=True)
class Examined:
    """What was found of a candidate's outputs.

    Attributes:
        difference: The largest difference of values that may differ; empty: there is none.
        unsteady: Outputs that differ between answers to one request.
    """

    difference: str = ""
    unsteady: tuple[Unsteady, ...] = ()


@dataclass(frozen=True)
class ExamineCandidate:
    """Checks that the effective config is the candidate's, is new, and gives the golden outputs.

    Attributes:
        space: The search space.
        candidate: The candidate.
        served: The configs that were served before.
        golden: The golden outputs; None: outputs are not compared.
        tolerance: The tolerance of floats; None: outputs are not compared.
    """

    space: SearchSpace
    candidate: Candidate
    served: ServedConfigs
    golden: GoldenOutputs | None
    tolerance: Tolerance | None

    def __call__(self, session: Session) -> Examined:
        """Check the server.

        Raises:
            ServerError: a check failed.
        """
        effective = ModelConfig.from_proto(session.effective)
        if otherwise := served_otherwise(self.space, self.candidate, effective):
            differences = " and ".join(map(str, otherwise))
            reason = f"{differences}: the model or its backend sets it when Triton completes the config"
            raise ServerError(reason, cause=Cause.CONFIG_DIFFERS)
        if (same := self.served.same_as(self.candidate, effective)) is not None:
            raise ServerError(f"same effective config as trial {same}", cause=Cause.DUPLICATE)
        if self.golden is None or self.tolerance is None:
            return Examined()
        may_differ = self.space.may_differ(self.candidate.parameters)
        return compare_outputs(session, self.golden, self.tolerance, may_differ=may_differ)


def compare_outputs(session: Session, golden: GoldenOutputs, tolerance: Tolerance, *, may_differ: bool) -> Examined:
    """Compare a candidate's outputs with the golden ones.

    Args:
        session: The candidate's session.
        golden: The golden outputs.
        tolerance: The tolerance of floats.
        may_differ: Whether values of its outputs may differ (`--allow-numerics`).

    Raises:
        OutputsDifferError: its outputs differ.
        ServerError: the candidate does not answer.
    """
    largest_batch = max(1, session.effective.max_batch_size // session.batch_size)
    try:
        with session.asking() as ask:
            return Examined(unsteady=tuple(check_golden(ask, golden, tolerance, largest_batch=largest_batch)))
    except OutputsDifferError as difference:
        if not (may_differ and difference.values_only):
            raise
        return Examined(difference=str(difference))


class OutputCheck:
    """Keeps the golden outputs, and remarks on what is not compared.

    Args:
        folder: The model's folder in the run folder, which keeps the golden outputs for a resumed run.
        identity: The identity of the study, with the tolerance.
        note: Takes progress messages.
        remark: Takes remarks on outputs that are not compared; may be called repeatedly with the same remark.
    """

    def __init__(
        self, folder: Path, identity: Identity, note: Callable[[str], None], remark: Callable[[str], None]
    ) -> None:
        self._file = folder / GOLDEN_FILE
        self._study = sha256(identity.model_dump_json().encode()).hexdigest()
        self._model = identity.model
        self._tolerance = None if identity.output_tolerance is None else Tolerance(identity.output_tolerance)
        self._made_up = identity.requests.get("input_data", "random") in MADE_UP
        self._note = note
        # The file contains the sent requests, so it is not written if they contain secrets.
        self._is_kept = HIDDEN not in identity.requests.get("request_parameter", {}).values()
        self._remark = remark
        self._golden: GoldenOutputs | None = None

    def recall(self) -> bool:
        """Load the golden outputs of an earlier run. Returns false if the baseline must be recorded again."""
        if self._tolerance is None or self._golden is not None:
            return True
        try:
            self._golden = read_golden(self._file, self._study)
        except GoldenFileError as error:
            self._note(f"{self._file} {error}; relaunching the baseline to record its outputs")
            return False
        self._remark_on_exclusions(self._golden)
        return True

    @property
    def of_baseline(self) -> ExamineBaseline | None:
        """Records the golden outputs; `recorded` takes them. None: outputs are not compared."""
        return None if self._tolerance is None else ExamineBaseline(self._tolerance)

    def recorded(self, golden: GoldenOutputs) -> None:
        """Keep the golden outputs."""
        self._golden = golden
        if self._is_kept:
            write_golden(self._file, golden, self._study)
        self._remark_on_exclusions(golden)

    def of_host(self) -> ExamineHost | None:
        """Checks the baseline on another host; None: outputs are not compared."""
        if self._golden is None or self._tolerance is None:
            return None
        return ExamineHost(self._golden, self._tolerance)

    def of_candidate(self, space: SearchSpace, candidate: Candidate, served: ServedConfigs) -> ExamineCandidate:
        """Checks a candidate; `checked` takes what it found."""
        return ExamineCandidate(space, candidate, served, self._golden, self._tolerance)

    def checked(self, examined: Examined) -> None:
        """Remark on outputs whose values were not compared."""
        for output in examined.unsteady:
            self._remark(
                f"output {output.output!r}: only type and shape are compared where a candidate's answers to one "
                f"request differ; one candidate gives {output.words}"
            )

    def _remark_on_exclusions(self, golden: GoldenOutputs) -> None:
        """Remark on each output and request that is not compared."""
        for output in golden.unsteady:
            what = "no output is compared" if output.output is None else f"output {output.output!r} is not compared"
            if output.output is not None and not output.outline_varies:
                what = f"the values of output {output.output!r} are not compared"
            self._remark(f"{what}: the baseline gives {output.words}{self._hint(golden, output)}")
        if golden.refused and not golden.lines:
            self._remark(f"no output is compared: the baseline fails every request: {golden.refused[0]}")
        elif count := len(golden.refused):
            requests, they = ("1 request", "it") if count == 1 else (f"{count} requests", "them")
            self._remark(f"outputs of {requests} are not compared: the baseline fails {they}: {golden.refused[0]}")

    def _hint(self, golden: GoldenOutputs, unsteady: Unsteady) -> str:
        """The advice to use real inputs, since rounding errors may be largest for unrealistic values."""
        if not self._made_up or unsteady.output is None or not golden.is_float(unsteady.output):
            return ""
        return (
            "; inputs are generated (floats from 0 to 1, integers 0 or 1); with real inputs (--input-data) this output "
            "may be the same every time, and then it is compared"
        )
