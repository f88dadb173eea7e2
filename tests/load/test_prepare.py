from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2

from tuner.core.errors import InputError, JobError
from tuner.load.inputs import made_up
from tuner.load.prepare import apart, prepared
from tuner.load.workload import Plan, Sequences
from tuner.options.endpoint import Endpoint
from tuner.options.groups import LoadOptions

_GRPC, _HTTP = Endpoint("127.0.0.1:9"), Endpoint("127.0.0.1:9", "http")
_CONFIG = """
name: "m" max_batch_size: 8
input { name: "IN" data_type: TYPE_FP32 dims: 4 }
output { name: "OUT" data_type: TYPE_FP32 dims: 4 }
"""


def plan(more: str = "", endpoint: Endpoint = _GRPC, **options: Any) -> Plan:
    effective = text_format.Parse(_CONFIG + more, model_config_pb2.ModelConfig())
    with prepared(effective, LoadOptions.make(options), endpoint, request_timeout_s=5) as made:
        return made


def message(made: Plan, place: int = 0) -> service_pb2.ModelInferRequest:
    return service_pb2.ModelInferRequest.FromString(made.workload.requests[place].body)


@pytest.mark.parametrize(
    ("more", "options", "driver"),
    [
        ("", {}, "wire"),
        ("dynamic_batching { }", {"batch_size": 4}, "wire"),
        ("", {"compression": "gzip"}, "grpcio"),
        ("model_transaction_policy { decoupled: true }", {}, "grpcio"),
        ("sequence_batching { }", {}, "grpcio"),
        ("", {"endpoint": _HTTP}, "http"),
    ],
)
def test_the_driver_is_the_lightest_that_does_it(more: str, options: dict[str, Any], driver: str) -> None:
    assert plan(more, **options).driver == driver


def test_a_pool_of_different_requests_is_made_up() -> None:
    made = plan(seed=3)
    assert len({request.body for request in made.workload.requests}) == len(made.workload.requests) == 16
    assert plan(seed=3).workload == made.workload
    assert plan(seed=4).workload != made.workload
    assert len({request.body for request in plan(input_data="zero").workload.requests}) == 1


def test_what_goes_with_each_request_is_in_it() -> None:
    made = plan(
        "dynamic_batching { priority_levels: 2 default_queue_policy {"
        " allow_timeout_override: true default_timeout_microseconds: 50000 } }",
        batch_size=2,
        priority=1,
        queue_timeout="20ms",
        request_parameter=["deep:true:bool"],
        connections=3,
    )
    said = message(made)
    assert list(said.inputs[0].shape) == [2, 4]
    assert said.parameters["priority"].uint64_param == 1
    assert said.parameters["timeout"].int64_param == 20_000
    assert said.parameters["deep"].bool_param is True
    assert (made.workload.batch_size, made.connections, made.request_timeout_s) == (2, 3, 5)


def sequences(made: Plan) -> Sequences:
    """How the requests of a plan go together, but for the ids."""
    assert made.workload.sequences
    return replace(made.workload.sequences, first_id=1)


def test_two_load_generators_send_no_requests_of_the_same_sequences() -> None:
    first_ids = {made.first_id for made in (plan("sequence_batching { }").workload.sequences for _ in range(4)) if made}
    assert len(first_ids) == 4
    # As many fit behind it into 32 bits with a sign.
    assert all(1 <= first <= 2**30 for first in first_ids)


def test_another_connection_sends_the_same_in_other_sequences() -> None:
    stateful = plan("sequence_batching { }")
    other = apart(stateful)
    assert sequences(other) == sequences(stateful)
    assert other.workload.sequences != stateful.workload.sequences
    assert other.workload.streams == stateful.workload.streams
    assert apart(plan()) == plan()


@pytest.mark.parametrize(
    ("control", "text_ids"),
    [
        ("kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_STRING", True),
        ("kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_INT32", False),
        ("kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ]", False),
    ],
)
def test_ids_are_strings_where_the_model_wants_them_so(control: str, *, text_ids: bool) -> None:
    other = '{ name: "END" control [ { kind: CONTROL_SEQUENCE_END int32_false_true: [ 0, 1 ] } ] }'
    more = f'sequence_batching {{ control_input [ {other}, {{ name: "C" control [ {{ {control} }} ] }} ] }}'
    assert sequences(plan(more)).text_ids is text_ids


def test_requests_of_an_iterative_model_are_whole_sequences() -> None:
    assert sequences(plan("sequence_batching { iterative_sequence: true }")).iterative
    with pytest.raises(
        JobError, match="--sequence-length has no effect: each request to model 'm' is a whole sequence"
    ):
        plan("sequence_batching { iterative_sequence: true }", sequence_length=4)


def test_sequences_are_of_the_pool_or_are_the_streams_of_a_file(tmp_path: Path) -> None:
    stateful = "sequence_batching { }"
    assert sequences(plan(stateful)) == Sequences(length=20)
    file = tmp_path / "data.json"
    file.write_text(json.dumps({"data": [[{"IN": [1, 2, 3, 4]}] * 3, [{"IN": [4, 3, 2, 1]}] * 2]}))
    made = plan(stateful, input_data=str(file))
    assert sequences(made) == Sequences(length=None)
    assert [len(stream) for stream in made.workload.streams] == [3, 2]
    assert sequences(plan(stateful, input_data=str(file), sequence_length=5)) == Sequences(length=5)


def test_what_does_not_go_together_is_said() -> None:
    with pytest.raises(JobError, match="--compression is for gRPC"):
        plan(endpoint=_HTTP, compression="gzip")
    with pytest.raises(JobError, match="which HTTP does not support"):
        plan("model_transaction_policy { decoupled: true }", endpoint=_HTTP)
    with pytest.raises(InputError, match="has no input 'X'"):
        plan(shape=["X:4"])


@pytest.mark.parametrize(
    "field", ["default_queue_policy {{ {} }}", "priority_queue_policy {{ key: 1 value {{ {} }} }}"]
)
def test_a_time_out_needs_a_queue_that_minds_it(field: str) -> None:
    def with_policy(policy: str) -> str:
        return f"dynamic_batching {{ priority_levels: 2 {field.format(policy)} }}"

    minding = with_policy("allow_timeout_override: true default_timeout_microseconds: 20001")
    assert message(plan(minding, queue_timeout="20ms")).parameters["timeout"].int64_param == 20_000
    for policy in (
        "default_timeout_microseconds: 20001",
        "allow_timeout_override: true",
        "allow_timeout_override: true default_timeout_microseconds: 20000",
    ):
        with pytest.raises(
            JobError, match="--queue-timeout has no effect: model 'm' has no queue policy with allow_time"
        ):
            plan(with_policy(policy), queue_timeout="20ms")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"sequences": 2}, "--sequences has no effect: model 'm' does not batch sequences"),
        ({"string_data": "x"}, "--string-data has no effect: model 'm' takes no strings"),
        ({"priority": 1}, "--priority has no effect: model 'm' has no priority levels"),
    ],
)
def test_nothing_is_ignored_in_silence(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(JobError) as raised:
        plan(**options)
    assert str(raised.value) == complaint


_VARIABLE = _CONFIG.replace("dims: 4", "dims: -1", 1)


@pytest.mark.parametrize(
    ("endpoint", "options"), [(_HTTP, {}), (_GRPC, {"shared_memory": "system"})], ids=["http", "shared memory"]
)
def test_the_limit_of_grpc_comes_before_requests_are_made(
    endpoint: Endpoint, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class MadeError(Exception):
        pass

    def make(*_: object) -> None:
        raise MadeError

    monkeypatch.setattr(made_up, "_values", make)
    monkeypatch.setattr(made_up, "_COPIES", 0)  # whatever memory there is
    effective = text_format.Parse(_VARIABLE, model_config_pb2.ModelConfig())

    def prepare(where: Endpoint, **more: Any) -> None:
        asked = LoadOptions.make({"shape": ["IN:600000000"], **more})
        with prepared(effective, asked, where, request_timeout_s=5):
            pass

    with pytest.raises(InputError, match=r"^a request to model 'm' has 2\.2 GiB; the limit of gRPC is 2 GiB$"):
        prepare(_GRPC)
    with pytest.raises(MadeError):
        prepare(endpoint, **options)
