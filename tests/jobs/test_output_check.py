from __future__ import annotations

import pickle
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from support.builders import identity, space, trial

from tuner.core.errors import OutputsDifferError
from tuner.jobs import output_check as module
from tuner.jobs.output_check import GOLDEN_FILE, ExamineCandidate, OutputCheck, compare_outputs
from tuner.load.inputs.tensors import InputTensor
from tuner.load.workload import Request
from tuner.outputs.differences import Tolerance
from tuner.outputs.golden import GoldenAnswer, GoldenOutputs, Unsteady
from tuner.outputs.golden_file import write_golden
from tuner.search.proposals import ServedConfigs

ANSWER = GoldenAnswer(Request(b"r"), ((InputTensor("y", "FP32", np.zeros(1, np.float32)),),))


def recalled(folder: Path, golden: GoldenOutputs | None, **changes: object) -> tuple[bool, list[str]]:
    """Whether a resumed run has what it needs, and what it says."""
    notes: list[str] = []
    check = OutputCheck(folder, identity(**changes), notes.append, notes.append)
    if golden:
        write_golden(folder / GOLDEN_FILE, golden, check._study)
    found = check.recall()
    assert check.recall() is found
    return found, notes[: len(notes) // (1 if found else 2)]


def test_what_was_recorded_is_enough(tmp_path: Path) -> None:
    assert recalled(tmp_path, GoldenOutputs(((ANSWER,),))) == (True, [])


def test_what_is_left_out_is_said_each_in_a_line(tmp_path: Path) -> None:
    golden = GoldenOutputs(
        ((ANSWER,),),
        (Unsteady("COUNT", "1 alone, and then 2"), Unsteady(None, "3, and 4")),
        ("INTERNAL: not this one",) * 2,
    )
    assert recalled(tmp_path, golden) == (
        True,
        [
            "the values of output 'COUNT' are not compared: the baseline gives 1 alone, and then 2",
            "no output is compared: the baseline gives 3, and 4",
            "outputs of 2 requests are not compared: the baseline fails them: INTERNAL: not this one",
        ],
    )


@pytest.mark.parametrize(("inputs", "told"), [("random", True), ("zero", True), ("0123abc", False)])
@pytest.mark.parametrize("output", ["y", "COUNT"])
def test_of_floats_that_differ_for_made_up_inputs_real_ones_are_asked_for(
    tmp_path: Path, output: str, inputs: str, *, told: bool
) -> None:
    golden = GoldenOutputs(((ANSWER,),), (Unsteady(output, "1, and 1.02"),))
    requests = {} if inputs == "random" else {"input_data": inputs}
    _, (note,) = recalled(tmp_path, golden, requests=requests)
    assert note.startswith(f"the values of output {output!r} are not compared: the baseline gives 1, and 1.02")
    assert ("inputs are generated" in note and "--input-data" in note) is (told and output == "y")


def test_an_output_whose_shape_varies_is_not_compared_at_all(tmp_path: Path) -> None:
    golden = GoldenOutputs(((ANSWER,),), (Unsteady("y", "shape [1], and shape [2]", outline_varies=True),))
    _, (note,) = recalled(tmp_path, golden)
    assert note.startswith("output 'y' is not compared: ")


def test_where_nothing_can_be_compared_it_is_said(tmp_path: Path) -> None:
    found, notes = recalled(tmp_path, GoldenOutputs((), refused=("INTERNAL: no",)))
    assert found
    assert notes == ["no output is compared: the baseline fails every request: INTERNAL: no"]


def test_what_is_lost_is_recorded_anew(tmp_path: Path) -> None:
    found, (note,) = recalled(tmp_path, None)
    assert not found
    assert note == (f"{tmp_path / GOLDEN_FILE} is missing; relaunching the baseline to record its outputs")


def test_nothing_is_needed_where_outputs_are_not_compared(tmp_path: Path) -> None:
    assert recalled(tmp_path, None, output_tolerance=None) == (True, [])


def test_requests_with_a_secret_in_them_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = GoldenOutputs(((ANSWER,),))
    monkeypatch.setattr("tuner.jobs.output_check.record_golden", lambda *_: golden)
    session = SimpleNamespace(questions=tuple, asking=nullcontext)
    for parameters, kept in (({"temperature": 0.5}, True), ({"api_key": "***"}, False)):
        folder = tmp_path / next(iter(parameters))
        about = identity(requests={"request_parameter": parameters})
        check = OutputCheck(folder, about, pytest.fail, pytest.fail)
        assert check.of_baseline
        check.recorded(check.of_baseline(session))  # type: ignore[arg-type]
        assert (folder / GOLDEN_FILE).exists() == kept


@pytest.mark.parametrize("may_differ", [False, True])
def test_values_may_differ_with_leave_but_not_shapes(monkeypatch: pytest.MonkeyPatch, *, may_differ: bool) -> None:
    session = SimpleNamespace(
        effective=SimpleNamespace(max_batch_size=1), batch_size=1, asking=lambda: nullcontext(None)
    )
    for values_only in (True, False):

        def differ(*_: object, values_only: bool = values_only, **__: object) -> None:
            raise OutputsDifferError("output 'y' differs: 1.1, baseline 1", values_only=values_only)

        monkeypatch.setattr(module, "check_golden", differ)
        compare = partial(
            compare_outputs, cast("Any", session), GoldenOutputs(((ANSWER,),)), Tolerance(1e-3), may_differ=may_differ
        )
        if may_differ and values_only:
            assert compare().difference == "output 'y' differs: 1.1, baseline 1"
        else:
            with pytest.raises(OutputsDifferError):
                compare()


def test_what_examines_a_candidate_can_be_sent_to_another_process() -> None:
    built = space()
    served = ServedConfigs()
    served.read([trial(0)])
    candidate = built.candidate(built.baseline)
    examine = ExamineCandidate(built, candidate, served, GoldenOutputs(((ANSWER,),)), Tolerance(1e-3))
    again = pickle.loads(pickle.dumps(examine))  # noqa: S301 (just made)
    assert (again.space, again.candidate) == (built, candidate)
    assert again.space.normalize(built.baseline) == built.baseline
    assert again.served.same_as(candidate) == served.same_as(candidate)
    assert again.golden.questions == examine.golden.questions if examine.golden else False
