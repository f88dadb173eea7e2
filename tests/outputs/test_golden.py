from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.services import ON_BOTH, Services
from tritonclient.grpc import service_pb2

from tuner.core.errors import Cause, OutputsDifferError, ServerError, ServerHungError
from tuner.load.aio.caller import Reply
from tuner.load.asking import Ask, RequestChains, asking, some_of
from tuner.load.inputs.tensors import InputTensor
from tuner.load.prepare import prepared
from tuner.load.workload import Request
from tuner.options.groups import LoadOptions
from tuner.outputs import golden as goldens
from tuner.outputs.differences import Tolerance
from tuner.outputs.golden import GoldenAnswer, GoldenOutputs, check_golden, record_golden
from tuner.servers.client import TritonClient
from tuner.testing.repositories import config_text, stateful_config

TOLERANCE = Tolerance(1e-3)
BATCHING = "dynamic_batching { max_queue_delay_microseconds: 2000 }"
COUNTING = config_text().replace(
    'output [ { name: "OUT"', 'output [ { name: "COUNT" data_type: TYPE_FP32 dims: [ 1 ] }, { name: "OUT"'
)
MODELS = {
    "identity": ("identity", config_text()),
    "alone": ("mixes", config_text()),
    "mixed": ("mixes", config_text(more=BATCHING)),
    "counting": ("mixes", COUNTING),
    "narrow": ("slow", config_text(more="dynamic_batching { default_queue_policy { max_queue_size: 1 } }")),
    "flaky": ("fails_requests", config_text(fail_every=3)),
    "failing": ("fails_requests", config_text(message="the model says no")),
    "hanging": ("hangs", config_text()),
    "decoupled": ("decoupled", config_text(more="model_transaction_policy { decoupled: true }")),
    "stateful": ("stateful", config_text(more=stateful_config(), diary="/dev/null")),
}


@contextmanager
def conversation(
    services: Services, model: str, protocol: str = "grpc", *, timeout_s: float = 10, **options: Any
) -> Iterator[tuple[Ask, RequestChains]]:
    """A way to ask a model, and what."""
    service = services.load(*MODELS[model])
    endpoint = service.grpc if protocol == "grpc" else service.http
    with (
        TritonClient(endpoint) as client,
        prepared(
            client.model_config(service.model), LoadOptions.make(options), endpoint, request_timeout_s=timeout_s
        ) as plan,
        asking(plan) as ask,
    ):
        yield ask, some_of(plan.workload, made_up="input_data" not in options)


def record(services: Services, model: str, protocol: str = "grpc", **options: Any) -> GoldenOutputs:
    with conversation(services, model, protocol, **options) as (ask, questions):
        return record_golden(ask, questions, TOLERANCE)


def check(services: Services, model: str, golden: GoldenOutputs, tolerance: Tolerance = TOLERANCE) -> None:
    with conversation(services, model) as (ask, _):
        check_golden(ask, golden, tolerance, largest_batch=8)


def asked_of(services: Services, golden: GoldenOutputs, model: str) -> GoldenOutputs:
    """The same for a model of another name, as one repository has no two configs of one."""
    name = services.load(*MODELS[model]).model

    def renamed(request: Request) -> Request:
        message = service_pb2.ModelInferRequest.FromString(request.body)
        message.model_name = name
        return replace(request, body=message.SerializeToString())

    lines = tuple(tuple(replace(each, request=renamed(each.request)) for each in line) for line in golden.lines)
    return replace(golden, lines=lines)


def spoilt(golden: GoldenOutputs, number: int, off: float) -> GoldenOutputs:
    """As if the third element of one answer had been another."""
    (answer,) = golden.lines[number]
    ((output,),) = answer.responses
    values = output.values.copy()
    values[0, 2] += off
    wrong = GoldenAnswer(answer.request, ((InputTensor(output.name, output.datatype, values),),))
    return replace(golden, lines=(*golden.lines[:number], (wrong,), *golden.lines[number + 1 :]))


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_the_outputs_of_a_pool_of_requests_are_recorded(services: Services, protocol: str) -> None:
    began = time.monotonic()
    golden = record(services, "identity", protocol, batch_size=2)
    took_s = time.monotonic() - began
    assert len(golden.lines) == 16
    assert not golden.unsteady
    assert not golden.refused
    outputs = [output for (answer,) in golden.lines for (output,) in answer.responses]
    assert {(output.name, output.datatype, output.shape) for output in outputs} == {("OUT", "FP32", (2, 4))}
    assert len({output.raw() for output in outputs}) == 16
    # It hands back what it gets.
    assert all(output.raw() in answer.request.body for (answer,) in golden.lines for (output,) in answer.responses)
    assert 0 < golden.answer_s < took_s


def test_who_answers_the_same_passes(services: Services) -> None:
    check(services, "identity", record(services, "identity"), Tolerance(0))


@ON_BOTH
def test_what_differs_in_a_batch_is_found_and_the_worst_named(services: Services) -> None:
    golden = record(services, "alone")
    assert golden.unsteady == ()
    with pytest.raises(OutputsDifferError) as raised:
        check(services, "mixed", asked_of(services, golden, "mixed"))
    assert raised.value.cause is Cause.OUTPUTS_DIFFER
    message = str(raised.value)
    assert message.startswith("output 'OUT' of request ")
    assert ", baseline " in message
    assert message.endswith(" of 16 requests differ")
    assert "\n" not in message


def test_one_wrong_element_is_enough(services: Services) -> None:
    golden = record(services, "identity")
    ((output,),) = golden.lines[4][0].responses
    right = float(output.values[0, 2])
    with pytest.raises(OutputsDifferError) as raised:
        check(services, "identity", spoilt(golden, 4, 1.0))
    words = f"output 'OUT' of request 5 differs: {right:.4g}, baseline {right + 1:.4g} (element"
    assert str(raised.value).startswith(f"{words} [0, 2]; ")
    assert str(raised.value).endswith(" allowed)")
    check(services, "identity", spoilt(golden, 4, 1e-4 * right))


def test_what_the_config_as_it_is_does_not_say_twice_is_not_compared(services: Services) -> None:
    golden = record(services, "counting")
    (unsteady,) = golden.unsteady
    assert unsteady.output == "COUNT"
    assert " alone, " in unsteady.words
    check(services, "counting", golden)
    ((output, _),) = golden.lines[0][0].responses
    assert output.name == "OUT"
    without = tuple((replace(answer, responses=(answer.responses[0][1:],)),) for (answer,) in golden.lines)
    with pytest.raises(
        OutputsDifferError, match="output 'OUT' of request 1 differs: FP32 of shape .*, baseline nothing; 16"
    ):
        check(services, "counting", replace(golden, lines=without))


def test_a_config_that_mixes_answers_itself_is_held_to_nothing(services: Services) -> None:
    golden = record(services, "mixed")
    assert [each.output for each in golden.unsteady] == ["OUT"]
    check(services, "mixed", golden)


def written(folder: Path, *steps: tuple[int, int, int, int]) -> str:
    """A file of inputs."""
    np.savez(folder / "inputs.npz", IN=np.array(steps, np.float32))
    return str(folder / "inputs.npz")


def test_of_a_decoupled_model_all_responses_are_compared(services: Services, tmp_path: Path) -> None:
    golden = record(services, "decoupled", input_data=written(tmp_path, (3, 0, -1, 0), (0, 0, -1, 0), (2, 0, -1, 1)))
    assert [len(answer.responses) for (answer,) in golden.lines] == [3, 0, 2]
    assert not golden.unsteady
    check(services, "decoupled", golden)
    (answer,) = golden.lines[2]
    fewer = replace(golden, lines=(*golden.lines[:2], (replace(answer, responses=answer.responses[:1]),)))
    with pytest.raises(OutputsDifferError, match="^request 3 differs: 2 responses, baseline 1 response$"):
        check(services, "decoupled", fewer)


def test_of_a_stateful_model_whole_sequences_are_compared(services: Services, tmp_path: Path) -> None:
    inputs = written(tmp_path, *((place, 3, 0, 0) for place in range(3)))
    golden = record(services, "stateful", input_data=inputs)
    assert [[answer.responses[0][0].values[0, 0] for answer in line] for line in golden.lines] == [[0, 1, 3]]
    with conversation(services, "stateful", input_data=inputs) as (ask, _):
        check_golden(ask, golden, TOLERANCE)
        ((first, second, _),) = golden.lines
        swapped = replace(second, responses=first.responses)
        with pytest.raises(OutputsDifferError, match="^output 'OUT' of request 2 of sequence 1 differs: "):
            check_golden(ask, replace(golden, lines=((first, swapped, golden.lines[0][2]),)), TOLERANCE)


@ON_BOTH
def test_a_queue_that_has_no_room_for_all_at_once_is_no_failure(services: Services) -> None:
    golden = record(services, "narrow")
    assert not golden.unsteady
    assert not golden.refused
    with conversation(services, "narrow") as (ask, _):
        assert any(reply.error for (reply,) in ask(golden.questions))
        check_golden(ask, golden, TOLERANCE, largest_batch=8)


def test_requests_that_fail_anyway_are_left_out(services: Services) -> None:
    golden = record(services, "flaky")
    assert len(golden.lines) + len(golden.refused) == 16
    assert len(golden.refused) in {5, 6}
    assert all("not this one" in words for words in golden.refused)
    none = record(services, "failing")
    assert none.lines == ()
    check(services, "failing", none)


def test_a_request_that_only_the_candidate_fails_is_its_failure(services: Services) -> None:
    golden = record(services, "identity")
    with pytest.raises(ServerError, match="a request failed that .* answers: .*the model says no") as raised:
        check(services, "failing", asked_of(services, golden, "failing"))
    assert raised.value.cause is Cause.REQUESTS_FAILED


def test_a_server_that_hangs_is_not_waited_for_twice(services: Services) -> None:
    with (
        conversation(services, "hanging", timeout_s=0.3) as (ask, questions),
        pytest.raises(ServerHungError, match=r"request 1 failed: DEADLINE_EXCEEDED: no answer within 0\.3 s"),
    ):
        record_golden(ask, questions, TOLERANCE)


def test_a_slow_model_is_asked_fewer(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goldens, "_PATIENCE_S", 0.0)
    assert len(record(services, "identity").lines) == 2


def test_large_tensors_are_kept_of_fewer(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = record(services, "identity")
    monkeypatch.setattr(goldens, "_MOST_BYTES", 4 * golden.lines[0][0].byte_size)
    assert len(record(services, "identity").lines) == 5


@pytest.mark.parametrize(
    ("answer_s", "largest_batch", "most_bytes", "copies"),
    [(0.001, 8, 1 << 20, 1), (0.001, 32, 1 << 20, 4), (0.001, 1000, 1 << 20, 8), (0.05, 32, 1 << 20, 1), (0, 32, 1, 1)],
)
def test_a_candidate_is_asked_for_two_of_its_largest_batches_within_reason(
    answer_s: float, largest_batch: int, most_bytes: int, copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(goldens, "_MOST_BYTES", most_bytes)
    asked: list[int] = []
    output = InputTensor("y", "FP32", np.zeros(1, np.float32))
    line = (GoldenAnswer(Request(b"r"), ((output,),)),)
    golden = GoldenOutputs((line,) * 16, answer_s=answer_s)

    class EnoughError(Exception):
        pass

    def ask(lines: Sequence[Sequence[Request]]) -> list[list[Reply]]:
        asked.append(len(lines))
        raise EnoughError

    with pytest.raises(EnoughError):
        check_golden(ask, golden, TOLERANCE, largest_batch=largest_batch)
    assert asked == [16 * copies]


def named(who: bytes, value: float = 1.0) -> Reply:
    """The answer of a model that says who answers, too."""
    message = service_pb2.ModelInferResponse(model_name="m")
    message.outputs.add(name="WHO", datatype="BYTES", shape=[1])
    message.outputs.add(name="OUT", datatype="FP32", shape=[1])
    raw = (len(who).to_bytes(4, "little") + who, np.float32(value).tobytes())
    message.raw_output_contents.extend(raw)
    return Reply((message.SerializeToString(),))


class Instances:
    """Answers every request with the next of some answers, over and over."""

    def __init__(self, *replies: Reply) -> None:
        self._replies = replies
        self.asked = 0

    def __call__(self, lines: Sequence[Sequence[Request]]) -> list[list[Reply]]:
        told = []
        for _ in lines:
            told.append([self._replies[self.asked % len(self._replies)]])
            self.asked += 1
        return told


ONE_LINE: RequestChains = ((Request(b"r"),),)


def test_a_single_answer_that_is_the_same_again_does_not_prove_a_steady_output() -> None:
    """The first comparison finds no difference, as every second one of a model with two instances does."""
    golden = record_golden(Instances(named(b"a"), named(b"a"), named(b"b")), ONE_LINE, TOLERANCE)
    assert [(each.output, each.outline_varies) for each in golden.unsteady] == [("WHO", False)]


def test_many_lines_are_compared_once() -> None:
    ask = Instances(named(b"a"))
    record_golden(ask, ONE_LINE * 16, TOLERANCE)
    assert ask.asked == 32


def test_an_output_that_is_no_function_of_the_request_with_more_instances_is_compared_by_its_outline() -> None:
    golden = record_golden(Instances(named(b"one")), ONE_LINE * 8, TOLERANCE)
    assert not golden.unsteady
    (unsteady,) = check_golden(Instances(named(b"one"), named(b"two")), golden, TOLERANCE)
    assert (unsteady.output, unsteady.words) == ("WHO", "'one' for request 2 alone, 'two' when repeated")


def test_another_output_of_such_a_model_is_held_to_its_value() -> None:
    golden = record_golden(Instances(named(b"one")), ONE_LINE * 8, TOLERANCE)
    with pytest.raises(OutputsDifferError, match=r"output 'OUT' of request 2 differs: 2, .*; 4 of 8 requests differ"):
        check_golden(Instances(named(b"one"), named(b"two", 2.0)), golden, TOLERANCE)


def test_a_text_that_is_always_another_one_is_wrong() -> None:
    golden = record_golden(Instances(named(b"one")), ONE_LINE * 8, TOLERANCE)
    with pytest.raises(OutputsDifferError, match="output 'WHO' of request 1 differs: 'two', baseline 'one'"):
        check_golden(Instances(named(b"two")), golden, TOLERANCE)


def test_of_an_output_whose_values_vary_the_type_is_compared() -> None:
    golden = record_golden(Instances(named(b"a"), named(b"b")), ONE_LINE * 8, TOLERANCE)
    assert [each.output for each in golden.unsteady] == ["WHO"]
    message = service_pb2.ModelInferResponse.FromString(named(b"a").responses[0])
    message.outputs[0].datatype = "UINT8"
    message.outputs[0].shape[0] = 5
    with pytest.raises(OutputsDifferError, match="output 'WHO' of request 1 differs: UINT8, baseline BYTES"):
        check_golden(Instances(Reply((message.SerializeToString(),))), golden, TOLERANCE)
