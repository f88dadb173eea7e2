"""Checks that our load engine and gRPC's own library get the same answer to the same request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tritonclient.grpc import service_pb2

from tuner.core.errors import TuningError

# With two equally likely answers, 15 repeats agree once in 32,768 times (2 ** 15).
_MOST_REPEATS = 15


def check_agreement(ours: bytes, theirs: bytes, theirs_again: Callable[[], bytes]) -> None:
    """Compare two serialised `ModelInferResponse`s.

    A model may answer the same request differently each time, for example with the name of its instance. So if the two
    differ, gRPC's own library repeats the request, up to 15 times, until it gets our answer or a third one. An output
    that varies there is compared by name, type and shape; if its shape varies too, by name and type.

    Args:
        ours: The answer to our own framing.
        theirs: The answer to gRPC's own library.
        theirs_again: Asks again with gRPC's own library.

    Raises:
        TuningError: the answers differ, and gRPC's own library gets the same answer each time.
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
    """The part in which an answer differs from all others, which agree on it; None: there is none."""
    if mine in seen:
        return None
    if _names(mine) != _names(seen[0]):
        return f"outputs {_names(mine)} and {_names(seen[0])}"
    ours, others = list(_parts(mine)), [list(_parts(answer)) for answer in seen]
    for place, part in enumerate(ours):
        theirs = {parts[place] for parts in others if place < len(parts)}
        if len(theirs) == 1 and part not in theirs:
            return f"output {mine.outputs[place // 2].name!r} differs" if place < 2 * len(mine.outputs) else _ELSEWHERE
    return None


_ELSEWHERE = "fields other than the outputs differ"


def _parts(answer: service_pb2.ModelInferResponse) -> Iterator[bytes]:
    """The description and the bytes of each output; last, all other fields."""
    rest = service_pb2.ModelInferResponse()
    rest.CopyFrom(answer)
    del rest.outputs[:], rest.raw_output_contents[:]
    for place, output in enumerate(answer.outputs):
        yield output.SerializeToString(deterministic=True)
        yield b"".join(answer.raw_output_contents[place : place + 1])
    yield rest.SerializeToString(deterministic=True)
