"""Outputs stay the same: what the config as it is answers is recorded, and every candidate is held to it."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from tuner.measure.differences import Tolerance
from tuner.measure.golden import GoldenOutputs, check_golden, record_golden
from tuner.measure.golden_file import GoldenFileError, read_golden, write_golden
from tuner.measure.session import Session
from tuner.redaction import HIDDEN
from tuner.search.study import Identity

GOLDEN_FILE = "golden_outputs.npz"


class OutputCheck:
    """Looks at the server of each trial before it is measured.

    Args:
        folder: Of the model in the run's; the golden outputs are kept there, for a run that is resumed.
        identity: Of the study; its tolerance is the one that holds.
        note: Is told what is not compared, and why.
    """

    def __init__(self, folder: Path, identity: Identity, note: Callable[[str], None]) -> None:
        self._file = folder / GOLDEN_FILE
        self._study = sha256(identity.model_dump_json().encode()).hexdigest()
        self._model = identity.model
        self._tolerance = None if identity.output_tolerance is None else Tolerance(identity.output_tolerance)
        self._note = note
        # The requests lie in the file as they are sent, and what is secret in them may not.
        self._is_kept = HIDDEN not in identity.requests.get("request_parameter", {}).values()
        self._golden: GoldenOutputs | None = None

    def recall(self) -> bool:
        """Whether candidates can be checked, or need not be; else the config as it is has to be recorded once more."""
        if self._tolerance is None or self._golden is not None:
            return True
        try:
            self._golden = read_golden(self._file, self._study)
        except GoldenFileError as error:
            self._note(f"{self._file} {error}; the config as it is is launched again, to record its outputs")
            return False
        self._say_what_is_left_out(self._golden)
        return True

    def record(self, session: Session) -> None:
        """Record what the config as it is answers.

        Raises:
            ServerError: it does not.
        """
        if self._tolerance is None:
            return
        questions = session.questions()
        with session.asking() as ask:
            self._golden = record_golden(ask, questions, self._tolerance)
        if self._is_kept:
            write_golden(self._file, self._golden, self._study)
        self._say_what_is_left_out(self._golden)

    def check(self, session: Session) -> None:
        """See that a candidate answers the same.

        Raises:
            OutputsDifferError: it does not.
            ServerError: it does not answer.
        """
        if self._tolerance is None or self._golden is None:
            return
        largest_batch = max(1, session.effective.max_batch_size // session.batch_size)
        with session.asking() as ask:
            check_golden(ask, self._golden, self._tolerance, largest_batch=largest_batch)

    def _say_what_is_left_out(self, golden: GoldenOutputs) -> None:
        """Each in one line."""
        for each in golden.unsteady:
            what = "no output is compared" if each.output is None else f"output {each.output!r} is not compared"
            self._note(f"{self._model}: {what}: the config as it is gives {each.words}")
        if golden.refused and not golden.lines:
            self._note(
                f"{self._model}: no output is compared: the config as it is fails the requests: {golden.refused[0]}"
            )
        elif count := len(golden.refused):
            requests = f"{count} request{'s' * (count > 1)} that the config as it is fails"
            self._note(f"{self._model}: outputs are compared without {requests}: {golden.refused[0]}")
