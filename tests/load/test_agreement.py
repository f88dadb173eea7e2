from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import pytest
from tritonclient.grpc import service_pb2

from tuner.core.errors import TuningError
from tuner.load.agreement import check_agreement


def answer(content: bytes = b"abcd", *, name: str = "OUT", datatype: str = "UINT8", rows: int = 4) -> bytes:
    message = service_pb2.ModelInferResponse(model_name="m", raw_output_contents=[content])
    message.outputs.add(name=name, datatype=datatype, shape=[rows])
    serialised: bytes = message.SerializeToString()
    return serialised


def not_asked() -> NoReturn:
    raise AssertionError("there was no need to ask again")


def says(again: bytes) -> Callable[[], bytes]:
    return lambda: again


def test_the_same_answer_agrees() -> None:
    check_agreement(answer(), answer(), not_asked)


def test_a_model_that_is_never_the_same_agrees_by_name_type_and_shape() -> None:
    check_agreement(answer(b"abcd"), answer(b"efgh"), says(answer(b"ijkl")))


def test_a_shape_that_differs_each_time_is_not_compared() -> None:
    check_agreement(answer(b"abc", rows=3), answer(b"efgh"), says(answer(b"ij", rows=2)))


def test_a_shape_that_only_our_answer_has_does_not_agree() -> None:
    with pytest.raises(TuningError, match="output 'OUT' differs"):
        check_agreement(answer(b"abc", rows=3), answer(b"efgh"), says(answer(b"ijkl")))


@pytest.mark.parametrize("repeats", range(1, 16))
def test_one_of_several_answers_agrees_however_late_it_is_seen_again(repeats: int) -> None:
    """As of a model with several instances, each of which answers its name."""
    answers = iter([answer(b"efgh")] * (repeats - 1) + [answer(b"abcd")])
    check_agreement(answer(b"abcd"), answer(b"efgh"), lambda: next(answers))
    assert next(answers, None) is None


def test_an_output_that_is_always_the_same_is_compared_beside_one_that_is_not() -> None:
    def both(name: bytes, value: bytes) -> bytes:
        message = service_pb2.ModelInferResponse(model_name="m", raw_output_contents=[name, value])
        for output in ("WHO", "OUT"):
            message.outputs.add(name=output, datatype="UINT8", shape=[4])
        serialised: bytes = message.SerializeToString()
        return serialised

    check_agreement(both(b"here", b"same"), both(b"two.", b"same"), says(both(b"none", b"same")))
    with pytest.raises(TuningError, match="output 'OUT' differs"):
        check_agreement(both(b"here", b"othr"), both(b"two.", b"same"), says(both(b"none", b"same")))


def test_another_content_of_a_model_that_is_always_the_same_does_not() -> None:
    with pytest.raises(TuningError, match="different answers from model 'm': output 'OUT' differs; please report this"):
        check_agreement(answer(b"abce"), answer(), says(answer()))


@pytest.mark.parametrize("other", [answer(name="Z"), answer(datatype="INT8"), b""])
def test_other_outputs_never_do(other: bytes) -> None:
    with pytest.raises(TuningError, match="outputs .* and .*'OUT', 'UINT8'"):
        check_agreement(other, answer(), not_asked)
