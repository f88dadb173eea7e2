"""Whether two engines get the same answer to the same request, before either is believed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tritonclient.grpc import service_pb2

from tuner.core.errors import TuningError

# Of a model that gives two answers equally often, all of these are alike once in 32,768 times.
_MOST_REPEATS = 15


def check_agreement(ours: bytes, theirs: bytes, theirs_again: Callable[[], bytes]) -> None:
    """Compare two serialised `ModelInferResponse`s.

    One answer of each proves nothing: a model may answer the same request differently each time, as one of several
    instances does that names itself. Where the two differ, gRPC's own library asks again until it gets our answer, or
    another than its own first one. An output that differs there is compared by name, type and shape, and by
    name and type where its shape differs there, too.

    Args:
        ours: What our own framing got.
        theirs: What gRPC's own library got.
        theirs_again: Asks once more over gRPC's own library.

    Raises:
        TuningError: they differ, and gRPC's own library gets the same answer each time.
    """
    mine = _read(ours)
    seen = [_read(theirs)]
    while difference := _difference(mine, seen):
        if len(seen) > _MOST_REPEATS or _names(mine) != _names(seen[0]):
            raise TuningError(
                f"our load generator and gRPC's own library get different answers from model {seen[0].model_name!r}: "
                f"{difference}; please report this"
            )
        seen.append(_read(theirs_again()))


def _read(answer: bytes) -> service_pb2.ModelInferResponse:
    return service_pb2.ModelInferResponse.FromString(answer)


def _names(answer: service_pb2.ModelInferResponse) -> list[tuple[str, str]]:
    return [(output.name, output.datatype) for output in answer.outputs]


def _difference(mine: service_pb2.ModelInferResponse, seen: Sequence[service_pb2.ModelInferResponse]) -> str | None:
    """Where an answer differs from others to the same request that are alike there; None: nowhere."""
    if mine in seen:
        return None
    if _names(mine) != _names(seen[0]):
        return f"outputs {_names(mine)} and {_names(seen[0])}"
    ours, others = list(_parts(mine)), [list(_parts(answer)) for answer in seen]
    for place, part in enumerate(ours):
        theirs = {each[place] for each in others if place < len(each)}
        if len(theirs) == 1 and part not in theirs:
            return f"output {mine.outputs[place // 2].name!r} differs" if place < 2 * len(mine.outputs) else _ELSEWHERE
    return None


_ELSEWHERE = "fields other than the outputs differ"


def _parts(answer: service_pb2.ModelInferResponse) -> Iterator[bytes]:
    """The description of each output and its bytes; last what is not an output."""
    rest = service_pb2.ModelInferResponse()
    rest.CopyFrom(answer)
    del rest.outputs[:], rest.raw_output_contents[:]
    for place, output in enumerate(answer.outputs):
        yield output.SerializeToString(deterministic=True)
        yield b"".join(answer.raw_output_contents[place : place + 1])
    yield rest.SerializeToString(deterministic=True)
