"""Whether two engines get the same answer to the same request, before either is believed."""

from __future__ import annotations

from collections.abc import Callable

from tritonclient.grpc import service_pb2

from tuner.errors import TuningError


def check_agreement(ours: bytes, theirs: bytes, theirs_again: Callable[[], bytes]) -> None:
    """Compare two serialised `ModelInferResponse`s.

    A model that answers the same request differently each time is compared by names and types alone.

    Args:
        ours: What our own framing got.
        theirs: What gRPC's own library got.
        theirs_again: Asks once more over gRPC's own library.

    Raises:
        TuningError: they differ, and not because the model does.
    """
    mine, other = _read(ours), _read(theirs)
    if mine == other:
        return
    again = _read(theirs_again())
    if again != other and _outline(mine) == _outline(other):
        return
    raise TuningError(
        f"our load generator and gRPC's own library get different answers from model {other.model_name!r}: "
        f"{_difference(mine, other)}; please report this"
    )


def _read(answer: bytes) -> service_pb2.ModelInferResponse:
    return service_pb2.ModelInferResponse.FromString(answer)


def _outline(answer: service_pb2.ModelInferResponse) -> list[tuple[str, str]]:
    return [(output.name, output.datatype) for output in answer.outputs]


def _difference(mine: service_pb2.ModelInferResponse, other: service_pb2.ModelInferResponse) -> str:
    if _outline(mine) != _outline(other):
        return f"outputs {_outline(mine)} and {_outline(other)}"
    for place, output in enumerate(other.outputs):
        if (
            mine.outputs[place] != output
            or mine.raw_output_contents[place : place + 1] != (other.raw_output_contents[place : place + 1])
        ):
            return f"output {output.name!r} differs"
    return "they differ in what is not an output"
