"""Golden outputs: the baseline's answers to a few requests, which every candidate must reproduce."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median

from tuner.core.errors import Cause, OutputsDifferError
from tuner.load.aio.caller import Reply
from tuner.load.asking import Ask, RequestChains
from tuner.load.failures import cause_of, describe, failed
from tuner.load.outputs import read_outputs
from tuner.load.workload import Request
from tuner.outputs.differences import Difference, Response, Tolerance, differences, is_float, scales_of

# Recording ends after 2 s, but not before 2 lines (chains of requests).
_PATIENCE_S = 2.0
_FEWEST_LINES = 2
# 8 repeats detect an answer that varies every second time in 255 of 256 recordings. They end after at least 2 rounds,
# and after the time of the recording or 2 s, whichever is longer.
_COMPARED, _FEWEST_ROUNDS = 8, 2
# How often a request is repeated alone, to see whether its answer varies.
_ASKED_ALONE = 15
# Recording also ends at this many bytes, which are held in memory and on disk.
_MOST_BYTES = 256 << 20
# Limits of the number of requests sent at once to a candidate, which is twice its largest batch.
_FEWEST_AT_ONCE, _MOST_AT_ONCE = 16, 128
# The requests sent at once take at most 1 s one after the other, and have at most `_MOST_BYTES`.
_ASKING_S = 1.0

Responses = tuple[Response, ...]
"""All responses to a request; one for most models."""


@dataclass(frozen=True)
class GoldenAnswer:
    """A request and its golden answer.

    Attributes:
        request: The request, without sequence parameters.
        responses: The outputs of each response.
    """

    request: Request
    responses: Responses

    @property
    def byte_size(self) -> int:
        """Bytes of the request and its outputs; approximate for strings."""
        outputs = (tensor.values.nbytes for response in self.responses for tensor in response)
        return len(self.request.body) + sum(outputs)


@dataclass(frozen=True)
class Unsteady:
    """An output whose values vary between answers, and are not compared.

    Attributes:
        output: The name of the output; None: the number of responses varies.
        words: Two different values, as text.
        outline_varies: Whether its type, shape or presence varies, too, so that it is not compared at all.
    """

    output: str | None
    words: str
    outline_varies: bool = False


@dataclass(frozen=True)
class GoldenOutputs:
    """The golden outputs of the baseline.

    Attributes:
        lines: Chains of requests with their answers, in the order in which they were sent. For a stateful model, each
            is a sequence.
        unsteady: Outputs that vary. If the number of responses varies, nothing is compared.
        refused: The errors of requests that failed with the baseline, one line each.
        answer_s: Seconds that a single request takes.
    """

    lines: tuple[tuple[GoldenAnswer, ...], ...]
    unsteady: tuple[Unsteady, ...] = ()
    refused: tuple[str, ...] = ()
    answer_s: float = 0.0

    @property
    def questions(self) -> RequestChains:
        """The requests, without answers."""
        return tuple(tuple(answer.request for answer in line) for line in self.lines)

    @cached_property
    def scales(self) -> Mapping[str, float]:
        """The scale of each output of floats; see `scales_of`."""
        return scales_of([response for line in self.lines for answer in line for response in answer.responses])

    def is_float(self, output: str) -> bool:
        """Whether the output has floats, which are compared within a tolerance."""
        responses = (response for line in self.lines for answer in line for response in answer.responses)
        return any(is_float(tensor.datatype) for response in responses for tensor in response if tensor.name == output)

    def differences(
        self, number: int, responses: Sequence[Responses], tolerance: Tolerance
    ) -> list[tuple[str, Difference]]:
        """The differences in the answers to a line, each with its request as text, without values of unsteady outputs.

        Args:
            number: Index of the line.
            responses: The responses to each of its requests.
            tolerance: The tolerance of floats.
        """
        unsteady = {entry.output: entry for entry in self.unsteady}
        if None in unsteady:
            return []

        def is_known(difference: Difference) -> bool:
            return difference.output in unsteady and (
                difference.of_values or unsteady[difference.output].outline_varies
            )

        line = self.lines[number]
        return [
            (_where(number, at, len(line)), difference)
            for at, (answer, now) in enumerate(zip(line, responses, strict=True))
            for difference in differences(answer.responses, now, tolerance, self.scales)
            if not is_known(difference)
        ]


def record_golden(ask: Ask, questions: RequestChains, tolerance: Tolerance) -> GoldenOutputs:
    """Record the baseline's answers line by line. Then repeat all lines at once to find unsteady outputs.

    Failed requests are left out. A slow model gets fewer requests.

    Args:
        ask: Asks a server with the baseline.
        questions: The requests.
        tolerance: The tolerance of floats.

    Raises:
        ServerError: the server crashed, hangs, or sends an invalid answer.
    """
    lines: list[tuple[GoldenAnswer, ...]] = []
    refused: list[str] = []
    seconds: list[float] = []
    began = time.monotonic()
    for number, line in enumerate(questions):
        line_began = time.monotonic()
        (replies,) = ask([line])
        seconds.append((time.monotonic() - line_began) / len(replies))
        if error := _refusal(replies, number, len(line)):
            refused.append(error)
        else:
            lines.append(tuple(map(GoldenAnswer, line, _read(replies, number))))
        byte_size = sum(answer.byte_size for answers in lines for answer in answers)
        if number + 1 >= _FEWEST_LINES and (time.monotonic() - began > _PATIENCE_S or byte_size > _MOST_BYTES):
            break
    golden = GoldenOutputs(tuple(lines), refused=tuple(refused), answer_s=median(seconds))
    unsteady: dict[str | None, Unsteady] = {}
    patience_s = max(_PATIENCE_S, time.monotonic() - began)
    began = time.monotonic()
    for rounds in range(1, 1 + _COMPARED):
        # Reversed, so that each of several instances gets other requests than before.
        for number, replies in zip(reversed(range(len(lines))), ask(golden.questions[::-1]), strict=True):
            # A request refused by a full queue has no outputs to compare.
            if not _refusal(replies, number, len(golden.lines[number])):
                for where, difference in golden.differences(number, _read(replies, number), tolerance):
                    words = f"{difference.was} for {where} alone, {difference.now} together with others"
                    varies = not difference.of_values
                    if difference.output not in unsteady or varies > unsteady[difference.output].outline_varies:
                        unsteady[difference.output] = Unsteady(difference.output, words, varies)
        enough = rounds * len(golden.lines) >= _COMPARED or not golden.lines
        if enough or (rounds >= _FEWEST_ROUNDS and time.monotonic() - began > patience_s):
            break
    return replace(golden, unsteady=tuple(unsteady.values()))


def check_golden(
    ask: Ask, golden: GoldenOutputs, tolerance: Tolerance, *, largest_batch: int = 1
) -> tuple[Unsteady, ...]:
    """Check a candidate's answers to the golden requests, sent many at once so that it forms batches.

    An output without floats may depend on more than the request, for example on the name of the instance. The baseline
    may have a single instance and not show that. So if such an output differs, the request is repeated alone. If these
    answers vary, only type and shape of the output are compared. Floats have no such exception, as one of several
    instances may compute wrong values.

    Args:
        ask: Asks the candidate's server.
        golden: The golden outputs.
        tolerance: The tolerance of floats.
        largest_batch: The largest batch that the server forms, in requests.

    Returns:
        Outputs that vary with this candidate, though not with the baseline.

    Raises:
        OutputsDifferError: an answer differs; the message names the worst difference.
        ServerError: a request failed, even alone; or the server crashed, hangs, or sends an invalid answer.
    """
    mismatches: list[tuple[int, str, Difference]] = []
    numbers = list(range(len(golden.lines))) * _copies(golden, largest_batch)
    for number, replies in zip(numbers, ask([golden.questions[number] for number in numbers]), strict=True):
        answers = replies
        length = len(golden.lines[number])
        if _refusal(replies, number, length):
            # Repeated alone, since the queue may have been full.
            (answers,) = ask([golden.questions[number]])
            if error := _refusal(answers, number, length):
                raise failed("a request failed that the baseline answers", error)
        mismatches += [(number, *pair) for pair in golden.differences(number, _read(answers, number), tolerance)]
    unsteady = {entry.output: entry for entry in _unsteady_alone(ask, golden, mismatches, tolerance)}
    wrong = [mismatch for mismatch in mismatches if mismatch[2].output not in unsteady or not mismatch[2].of_values]
    if wrong:
        _, where, worst = max(wrong, key=lambda mismatch: mismatch[2].excess)
        told = _told(where, worst, wrong=len({number for number, _, _ in wrong}), golden=golden)
        raise OutputsDifferError(told, values_only=all(difference.of_values for _, _, difference in wrong))
    return tuple(unsteady.values())


def _unsteady_alone(
    ask: Ask, golden: GoldenOutputs, mismatches: Sequence[tuple[int, str, Difference]], tolerance: Tolerance
) -> Iterator[Unsteady]:
    """The outputs with differences that vary when a line is repeated alone; never outputs of floats."""
    first: dict[str, tuple[int, str]] = {}
    for number, where, difference in mismatches:
        if difference.output is not None and difference.of_values and not golden.is_float(difference.output):
            first.setdefault(difference.output, (number, where))
    for output, (number, where) in first.items():
        reference: GoldenOutputs | None = None
        for _ in range(_ASKED_ALONE):
            (replies,) = ask([golden.questions[number]])
            if _refusal(replies, number, len(golden.lines[number])):
                break
            responses = _read(replies, number)
            if reference is None:
                answers = tuple(map(GoldenAnswer, golden.questions[number], responses))
                reference = GoldenOutputs((*golden.lines[:number], answers))
            now = [
                difference
                for _, difference in reference.differences(number, responses, tolerance)
                if difference.output == output
            ]
            if now:
                yield Unsteady(output, f"{now[0].was} for {where} alone, {now[0].now} when repeated")
                break


def _copies(golden: GoldenOutputs, largest_batch: int) -> int:
    """Number of simultaneous copies of each line."""
    if not golden.lines or len(golden.lines[0]) > 1:
        return 1
    wanted = min(max(2 * largest_batch, _FEWEST_AT_ONCE), _MOST_AT_ONCE, _ASKING_S / max(golden.answer_s, 1e-6))
    byte_size = sum(answer.byte_size for line in golden.lines for answer in line)
    return max(1, round(min(wanted / len(golden.lines), _MOST_BYTES / max(byte_size, 1))))


def _told(where: str, worst: Difference, *, wrong: int, golden: GoldenOutputs) -> str:
    response = f"response {worst.response + 1} to " if worst.response else ""
    what = f"output {worst.output!r} of {response}{where}" if worst.output is not None else where
    detail = f" ({worst.detail})" if worst.detail else ""
    total = len(golden.lines)
    lines = "requests" if len(golden.lines[0]) == 1 else "sequences"
    also = f"; {wrong} of {total} {lines} differ" if wrong > 1 else ""
    return f"{what} differs: {worst.now}, baseline {worst.was}{detail}{also}"


def _refusal(replies: Sequence[Reply], number: int, length: int) -> str | None:
    """The error of a line that the server refused; None: it was answered.

    Raises:
        ServerError: the server crashed or hangs.
    """
    error = replies[-1].error
    if error is None:
        return None
    if cause_of(error) is not Cause.REQUESTS_FAILED:
        raise failed(f"{_where(number, len(replies) - 1, length)} failed", error)
    return error


def _read(replies: Sequence[Reply], number: int) -> list[Responses]:
    responses = []
    for at, reply in enumerate(replies):
        try:
            responses.append(tuple(map(read_outputs, reply.responses)))
        except ValueError as error:
            raise failed(_where(number, at, len(replies)), describe("DATA_LOSS", str(error))) from None
    return responses


def _where(number: int, at: int, length: int) -> str:
    """The name of a request, counted from 1."""
    return f"request {number + 1}" if length == 1 else f"request {at + 1} of sequence {number + 1}"
