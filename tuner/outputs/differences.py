"""Differences between two answers to the same request, beyond a tolerance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.load.inputs.tensors import InputTensor

Response = tuple[InputTensor, ...]
"""The outputs of one response."""

# Rounding may change a value by two steps of its datatype (2 epsilon).
_STEPS = 2
_EPSILON: Mapping[str, float] = {"FP16": 2.0**-10, "BF16": 2.0**-7, "FP32": 2.0**-23, "FP64": 2.0**-52}
# For values near zero, the absolute tolerance is this share of the relative one, times the output's scale.
_NEAR_ZERO = 0.01
_LONGEST_QUOTE = 40


@dataclass(frozen=True)
class Tolerance:
    """The allowed difference of floats; all other values must be equal.

    A value `a` equals the golden value `b` if `|a - b| <= rtol * |b| + atol`. Here `rtol` is the larger of `relative`
    and two steps of the datatype (2 epsilon: 0.2 % for FP16, 1.6 % for BF16). `atol` is for values near zero, which
    often are differences of larger values and have the rounding errors of these. It is a hundredth of `relative`, or
    two steps, times the output's scale, its root mean square. NaN equals NaN, and infinity the same infinity.

    Attributes:
        relative: A share of the value, 0.001 for 0.1 %; 0: floats must be equal, too.
    """

    relative: float

    def of(self, datatype: str, scale: float) -> tuple[float, float]:
        """`rtol` and `atol` of a datatype of floats, for an output of that scale."""
        if self.relative == 0:
            return 0.0, 0.0
        steps = _STEPS * _EPSILON[datatype]
        return max(self.relative, steps), scale * max(_NEAR_ZERO * self.relative, steps)


@dataclass(frozen=True)
class Difference:
    """A difference between an answer and the golden one.

    Attributes:
        output: The name of the output; None: the number of responses differs.
        response: Index of the response, from 0.
        was: The golden value, as text.
        now: The new value, as text.
        detail: Where in the output, and by how much; may be empty.
        excess: Deviation over tolerance; infinite if the tolerance is 0.
        of_values: Whether only values differ, not type or shape.
    """

    output: str | None
    response: int
    was: str
    now: str
    detail: str = ""
    excess: float = math.inf
    of_values: bool = False


def differences(
    before: Sequence[Response], after: Sequence[Response], tolerance: Tolerance, scales: Mapping[str, float]
) -> Iterator[Difference]:
    """The differences between two answers to one request: the largest one of each output and response.

    Args:
        before: The golden responses.
        after: The new responses.
        tolerance: The tolerance of floats.
        scales: The scale of each output of floats; see `scales_of`.
    """
    if len(before) != len(after):
        yield Difference(None, 0, _counted(len(before)), _counted(len(after)))
        return
    for place, (old, new) in enumerate(zip(before, after, strict=True)):
        was = {tensor.name: tensor for tensor in old}
        now = {tensor.name: tensor for tensor in new}
        for name in {**was, **now}:
            if difference := _difference(name, place, was.get(name), now.get(name), tolerance, scales.get(name, 0.0)):
                yield difference


def scales_of(responses: Sequence[Response]) -> Mapping[str, float]:
    """The root mean square of the finite values of each output of floats, over all responses."""
    squares: dict[str, tuple[float, int]] = {}
    largest: dict[str, float] = {}
    values = [
        (tensor.name, _finite(tensor)) for response in responses for tensor in response if tensor.datatype in _EPSILON
    ]
    for name, finite in values:
        largest[name] = max(largest.get(name, 0.0), float(np.abs(finite).max(initial=0.0)))
    for name, finite in values:
        total, count = squares.get(name, (0.0, 0))
        # Values are scaled, since squares of large FP64 values would be infinite.
        squares[name] = (total + float(np.square(finite / (largest[name] or 1.0)).sum()), count + finite.size)
    return {name: largest[name] * math.sqrt(total / max(1, count)) for name, (total, count) in squares.items()}


def is_float(datatype: str) -> bool:
    """Whether a KServe datatype has floats, which are compared within a tolerance."""
    return datatype in _EPSILON


def _difference(  # noqa: PLR0917 (called at one place, just above)
    name: str,
    place: int,
    was: InputTensor | None,
    now: InputTensor | None,
    tolerance: Tolerance,
    scale: float,
) -> Difference | None:
    if was is None or now is None:
        return Difference(name, place, _outline(was), _outline(now))
    if was.datatype != now.datatype:
        return Difference(name, place, was.datatype, now.datatype)
    if was.shape != now.shape:
        return Difference(name, place, f"shape {list(was.shape)}", f"shape {list(now.shape)}")
    if was.datatype in _EPSILON:
        return _floats(name, place, was, now, tolerance.of(was.datatype, scale))
    return _exact(name, place, was, now)


def _exact(name: str, place: int, was: InputTensor, now: InputTensor) -> Difference | None:
    differ = np.flatnonzero(was.values != now.values)
    if not differ.size:
        return None
    worst = int(differ[0])
    if was.values.dtype.kind in "iu":
        # Converted to Python integers, since a difference may overflow the datatype.
        before, after = (tensor.values.ravel()[differ].astype(np.object_) for tensor in (was, now))
        worst = int(differ[int(np.argmax(np.abs(after - before)))])
    more = f"{differ.size} of {was.values.size} elements differ" if differ.size > 1 else ""
    return _at(name, place, worst, was, now, more)


def _floats(
    name: str, place: int, was: InputTensor, now: InputTensor, allowed: tuple[float, float]
) -> Difference | None:
    if was.values.tobytes() == now.values.tobytes():
        return None
    rtol, atol = allowed
    before, after = _doubles(was).ravel(), _doubles(now).ravel()
    same = (before == after) | (np.isnan(before) & np.isnan(after))
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        off = np.abs(after - before)
        limit = rtol * np.abs(before) + atol
        excess = np.where(np.isfinite(before) & np.isfinite(after), off / limit, math.inf)
    excess[same] = 0.0
    worst = int(np.argmax(excess))
    if not excess[worst] > 1.0:
        return None
    note = ""
    if np.isfinite(off[worst]) and rtol * abs(before[worst]) >= atol and before[worst]:
        note = f"{100 * off[worst] / abs(before[worst]):,.3g} % off, {100 * rtol:.3g} % allowed"
    elif np.isfinite(off[worst]):
        note = f"off by {off[worst]:.3g}, {limit[worst]:.3g} allowed"
    return _at(name, place, worst, was, now, note, float(excess[worst]))


def _at(  # noqa: PLR0917 (the parts of one line)
    name: str, place: int, index: int, was: InputTensor, now: InputTensor, note: str, excess: float = math.inf
) -> Difference:
    """The difference of one element, given by its row-major index."""
    element = [int(axis) for axis in np.unravel_index(index, was.shape)]
    before, after = _value(was, index), _value(now, index)
    detail = "; ".join(part for part in (f"element {element}" if element else "", note) if part)
    return Difference(name, place, *_told_apart(before, after), detail, excess, of_values=True)


def _value(tensor: InputTensor, index: int) -> Any:
    values = _doubles(tensor) if tensor.datatype in _EPSILON else tensor.values
    value = values.ravel()[index]
    return value if isinstance(value, bytes) else value.item()


def _told_apart(before: Any, after: Any) -> tuple[str, str]:
    """Two values as text, with as few digits as distinguish them."""
    if isinstance(before, bytes):
        return _texts_told_apart(*(value.decode(errors="backslashreplace") for value in (before, after)))
    if not isinstance(before, float):
        return str(before), str(after)
    texts = ((f"{before:.{digits}g}", f"{after:.{digits}g}") for digits in (4, 6, 9, 17))
    return next(((old, new) for old, new in texts if old != new), (repr(before), repr(after)))


def _texts_told_apart(before: str, after: str) -> tuple[str, str]:
    """Two quoted texts; long texts are cut to the part where they begin to differ."""
    pairs = enumerate(zip(before, after, strict=False))
    differ = next((at for at, (old, new) in pairs if old != new), min(len(before), len(after)))
    is_long = max(len(before), len(after)) > _LONGEST_QUOTE
    start = max(0, differ - _LONGEST_QUOTE // 2) if is_long else 0

    def quoted(text: str) -> str:
        part = text[start : start + _LONGEST_QUOTE]
        return "..." * bool(start) + repr(part) + "..." * (start + len(part) < len(text))

    return quoted(before), quoted(after)


def _doubles(tensor: InputTensor) -> npt.NDArray[np.float64]:
    values: npt.NDArray[Any] = tensor.values
    if tensor.datatype == "BF16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    doubles: npt.NDArray[np.float64] = values.astype(np.float64)
    return doubles


def _finite(tensor: InputTensor) -> npt.NDArray[np.float64]:
    doubles = _doubles(tensor)
    finite: npt.NDArray[np.float64] = doubles[np.isfinite(doubles)]
    return finite


def _outline(tensor: InputTensor | None) -> str:
    return "nothing" if tensor is None else f"{tensor.datatype} of shape {list(tensor.shape)}"


def _counted(responses: int) -> str:
    return f"{responses} response{'' if responses == 1 else 's'}"
