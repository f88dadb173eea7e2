"""Golden outputs: what the baseline answers to a few requests, which every candidate must answer, too."""

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

# Recording ends after so long, though not before so many lines; a slow model answers the fewer.
_PATIENCE_S = 2.0
_FEWEST_LINES = 2
# An answer that is another every second time is seen to be so in all but one of 256 recordings: so many of the first
# answers are compared, though not for longer than the recording took, or the patience is, with this many rounds.
_COMPARED, _FEWEST_ROUNDS = 8, 2
# How often a request is asked alone, to see whether its answer varies when nothing comes with it.
_ASKED_ALONE = 15
# The same of so many bytes, which are held in memory, and on disk.
_MOST_BYTES = 256 << 20
# How many requests are under way at once when a candidate is asked: its largest batch twice over, within these limits,
_FEWEST_AT_ONCE, _MOST_AT_ONCE = 16, 128
# and no more than would take so long one after the other, or have more than `_MOST_BYTES`.
_ASKING_S = 1.0

Responses = tuple[Response, ...]
"""All responses to a request; of most models, one."""


@dataclass(frozen=True)
class GoldenAnswer:
    """A request and what it was answered.

    Attributes:
        request: As it goes over the wire, but for its place in a sequence.
        responses: The outputs of each response.
    """

    request: Request
    responses: Responses

    @property
    def byte_size(self) -> int:
        """Of the request and its outputs; of strings, roughly."""
        outputs = (tensor.values.nbytes for response in self.responses for tensor in response)
        return len(self.request.body) + sum(outputs)


@dataclass(frozen=True)
class Unsteady:
    """What the baseline does not answer the same way each time.

    Attributes:
        output: Its name; None: the number of responses.
        words: What it was, and was another time.
        outline_varies: Whether its type, its shape, or that it is there at all differed, too, so that nothing of it
            is compared; else these are.
    """

    output: str | None
    words: str
    outline_varies: bool = False


@dataclass(frozen=True)
class GoldenOutputs:
    """What the baseline answers.

    Attributes:
        lines: In the order in which they were asked; of a stateful model each is a sequence.
        unsteady: What is therefore not compared; where it is the number of responses, nothing is.
        refused: Why requests are missing that failed with the baseline, one line each.
        answer_s: Seconds that a request takes on its own.
    """

    lines: tuple[tuple[GoldenAnswer, ...], ...]
    unsteady: tuple[Unsteady, ...] = ()
    refused: tuple[str, ...] = ()
    answer_s: float = 0.0

    @property
    def questions(self) -> RequestChains:
        """The requests alone."""
        return tuple(tuple(answer.request for answer in line) for line in self.lines)

    @cached_property
    def scales(self) -> Mapping[str, float]:
        """Of each output of floats; see `scales_of`."""
        return scales_of([response for line in self.lines for answer in line for response in answer.responses])

    def is_float(self, output: str) -> bool:
        """Whether the output is compared within a tolerance."""
        responses = (response for line in self.lines for answer in line for response in answer.responses)
        return any(is_float(tensor.datatype) for response in responses for tensor in response if tensor.name == output)

    def differences(
        self, number: int, responses: Sequence[Responses], tolerance: Tolerance
    ) -> list[tuple[str, Difference]]:
        """Where the answers to a line differ, each with the request in words; but for the values of what is unsteady.

        Args:
            number: Of the line.
            responses: To each of its requests.
            tolerance: Of floats.
        """
        unsteady = {each.output: each for each in self.unsteady}
        if None in unsteady:
            return []

        def is_known(found: Difference) -> bool:
            return found.output in unsteady and (found.of_values or unsteady[found.output].outline_varies)

        line = self.lines[number]
        return [
            (_where(number, at, len(line)), difference)
            for at, (answer, now) in enumerate(zip(line, responses, strict=True))
            for difference in differences(answer.responses, now, tolerance, self.scales)
            if not is_known(difference)
        ]


def record_golden(ask: Ask, questions: RequestChains, tolerance: Tolerance) -> GoldenOutputs:
    """Ask the baseline: line after line, which is what is recorded; then all at once, to see what is steady.

    The latter several times where there are few lines: one answer that is the same proves nothing.

    Requests that fail are left out; a slow model is asked fewer.

    Args:
        ask: Of a server with that config.
        questions: What to ask.
        tolerance: Within which two answers are the same.

    Raises:
        ServerError: the server crashed, hangs, or answers what cannot be read.
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
        byte_size = sum(answer.byte_size for each in lines for answer in each)
        if number + 1 >= _FEWEST_LINES and (time.monotonic() - began > _PATIENCE_S or byte_size > _MOST_BYTES):
            break
    golden = GoldenOutputs(tuple(lines), refused=tuple(refused), answer_s=median(seconds))
    found: dict[str | None, Unsteady] = {}
    patience_s = max(_PATIENCE_S, time.monotonic() - began)
    began = time.monotonic()
    for rounds in range(1, 1 + _COMPARED):
        # The other way round, so that instances that take turns do not get the same requests again.
        for number, replies in zip(reversed(range(len(lines))), ask(golden.questions[::-1]), strict=True):
            # What a queue has no room for when all come at once says nothing of the outputs.
            if not _refusal(replies, number, len(golden.lines[number])):
                for where, difference in golden.differences(number, _read(replies, number), tolerance):
                    words = f"{difference.was} for {where} alone, {difference.now} together with others"
                    varies = not difference.of_values
                    if difference.output not in found or varies > found[difference.output].outline_varies:
                        found[difference.output] = Unsteady(difference.output, words, varies)
        enough = rounds * len(golden.lines) >= _COMPARED or not golden.lines
        if enough or (rounds >= _FEWEST_ROUNDS and time.monotonic() - began > patience_s):
            break
    return replace(golden, unsteady=tuple(found.values()))


def check_golden(
    ask: Ask, golden: GoldenOutputs, tolerance: Tolerance, *, largest_batch: int = 1
) -> tuple[Unsteady, ...]:
    """Ask a candidate the same, many requests at once, so that it forms batches: that is where candidates go wrong.

    An output that is no float may be no function of the request, and show it only now: as the name of the instance that
    answers, of which the baseline has one. So where such an output differs, the request is asked alone,
    several times; if the answers differ among each other, only the output's type and shape are compared. Floats get no
    such allowance: an instance of several that computes something else is what is looked for.

    Args:
        ask: Of its server.
        golden: What is to be answered.
        tolerance: Of floats.
        largest_batch: Requests that the server takes together at most.

    Returns:
        What this candidate does not answer the same way each time, though the baseline does.

    Raises:
        OutputsDifferError: an answer is another; the message names the worst difference.
        ServerError: a request failed, on its own, too; or the server crashed, hangs, or answers what cannot be read.
    """
    found: list[tuple[int, str, Difference]] = []
    numbers = list(range(len(golden.lines))) * _copies(golden, largest_batch)
    for number, replies in zip(numbers, ask([golden.questions[number] for number in numbers]), strict=True):
        told = replies
        length = len(golden.lines[number])
        if _refusal(replies, number, length):
            # A queue may have had no room for so many.
            (told,) = ask([golden.questions[number]])
            if error := _refusal(told, number, length):
                raise failed("a request failed that the baseline answers", error)
        found += [(number, *each) for each in golden.differences(number, _read(told, number), tolerance)]
    unsteady = {each.output: each for each in _unsteady_alone(ask, golden, found, tolerance)}
    wrong = [each for each in found if each[2].output not in unsteady or not each[2].of_values]
    if wrong:
        _, where, worst = max(wrong, key=lambda each: each[2].excess)
        raise OutputsDifferError(_told(where, worst, wrong=len({number for number, _, _ in wrong}), golden=golden))
    return tuple(unsteady.values())


def _unsteady_alone(
    ask: Ask, golden: GoldenOutputs, found: Sequence[tuple[int, str, Difference]], tolerance: Tolerance
) -> Iterator[Unsteady]:
    """The outputs, of those in which differences were found, that vary when a line is asked alone; none of floats."""
    first: dict[str, tuple[int, str]] = {}
    for number, where, difference in found:
        if difference.output is not None and difference.of_values and not golden.is_float(difference.output):
            first.setdefault(difference.output, (number, where))
    for output, (number, where) in first.items():
        known: GoldenOutputs | None = None
        for _ in range(_ASKED_ALONE):
            (replies,) = ask([golden.questions[number]])
            if _refusal(replies, number, len(golden.lines[number])):
                break
            responses = _read(replies, number)
            if known is None:
                answers = tuple(map(GoldenAnswer, golden.questions[number], responses))
                known = GoldenOutputs((*golden.lines[:number], answers))
            now = [each for _, each in known.differences(number, responses, tolerance) if each.output == output]
            if now:
                yield Unsteady(output, f"{now[0].was} for {where} alone, {now[0].now} when repeated")
                break


def _copies(golden: GoldenOutputs, largest_batch: int) -> int:
    """How often each line is asked at once."""
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
    """Why a line of that number and length was not answered to its end, where the server is well otherwise.

    Raises:
        ServerError: it is not.
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
    """A request in words, counted from 1."""
    return f"request {number + 1}" if length == 1 else f"request {at + 1} of sequence {number + 1}"
