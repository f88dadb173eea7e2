from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import pytest
from tritonclient.grpc import service_pb2

from tuner.errors import TuningError
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


def test_a_model_that_is_never_the_same_agrees_by_its_outline() -> None:
    check_agreement(answer(b"abc", rows=3), answer(b"efgh"), says(answer(b"ijkl")))


def test_another_content_of_a_model_that_is_always_the_same_does_not() -> None:
    with pytest.raises(TuningError, match="different answers from model 'm': output 'OUT' differs; please report this"):
        check_agreement(answer(b"abce"), answer(), says(answer()))


@pytest.mark.parametrize("other", [answer(name="Z"), answer(datatype="INT8"), b""])
def test_other_outputs_never_do(other: bytes) -> None:
    with pytest.raises(TuningError, match="outputs .* and .*'OUT', 'UINT8'"):
        check_agreement(other, answer(), says(answer(b"ijkl")))
