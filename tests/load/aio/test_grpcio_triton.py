from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import psutil
import pytest
from support.certificates import Certificates
from support.relay import Relay
from support.services import ON_BOTH, Services, TritonService, on_fake, on_triton
from support.tritons import grpcs_triton
from tritonclient.grpc import service_pb2

from tuner.config.interface import ModelInterface, Tensor
from tuner.core.errors import ServerError
from tuner.core.loads import Concurrency, Load, Replay, RequestRate
from tuner.load.asking import asking, some_of
from tuner.load.engine import WorkerEngine
from tuner.load.inputs.tensors import InputTensor, RequestStep
from tuner.load.outputs import read_outputs
from tuner.load.protocols import Samples
from tuner.load.requests.build import RequestOptions, build_workload
from tuner.load.workload import Compression, DriverName, Plan, Sequences, Workload
from tuner.options.endpoint import Endpoint
from tuner.servers.installation import TritonInstallation
from tuner.servers.protocols import Launch
from tuner.testing.engine_contract import LoadEngineContract, Serve, until_requests
from tuner.testing.repositories import ModelRepositoryFactory, config_text, stateful_config

DECOUPLED = "model_transaction_policy { decoupled: true }\n"
# Of streams of requests to the stateful model; sequences are longer and shorter.
STREAM = 5


class TestContract(LoadEngineContract):
    driver: ClassVar[DriverName] = "grpcio"

    @pytest.fixture
    def serve(self, triton_serve: Serve) -> Serve:
        return triton_serve


@pytest.fixture
def decoupled(services: Services) -> TritonService:
    return services.load("decoupled", config_text(more=DECOUPLED))


def workload(model: str, streams: Sequence[Sequence[Sequence[float]]], options: RequestOptions) -> Workload:
    """Requests that hold these values."""
    shape = (len(streams[0][0]),)
    interface = ModelInterface(model, 8, (Tensor("IN", "FP32", shape),), (Tensor("OUT", "FP32", shape),))
    steps = [
        tuple(RequestStep((InputTensor("IN", "FP32", np.array([values], np.float32)),)) for values in stream)
        for stream in streams
    ]
    return build_workload(interface, steps, options, "grpc")


def answering(service: TritonService, *requests: tuple[int, int, int, int], request_timeout_s: float = 10) -> Plan:
    """Requests to the decoupled model; see its docstring."""
    load = workload(service.model, [requests], RequestOptions(decoupled=True))
    return Plan("grpcio", service.grpc, load, request_timeout_s)


def four_zeros(model: str) -> Workload:
    return workload(model, [[[0] * 4]], RequestOptions())


def process_of(engine: WorkerEngine) -> psutil.Process:
    """Its worker."""
    return psutil.Process(engine._workers[0]._process.pid)


def offer(plan: Plan, load: Load, *, requests: int = 40, processes: int = 1) -> Samples:
    with WorkerEngine(plan, processes=processes) as engine:
        return engine.offer(load, until_requests(requests), first_look_s=0.05)


@pytest.mark.parametrize("together", [0, 1])
def test_responses_are_told_apart_in_time(decoupled: TritonService, together: int) -> None:
    samples = offer(answering(decoupled, (3, 40, -1, together)), Concurrency(4))
    responses = samples.responses
    assert samples.ok.all()
    assert responses
    assert set(responses.count.tolist()) == {3}
    assert len(responses.gap_us) == 2 * len(samples)
    # Each was noted when it was there, however late a busy machine brings it: none before the model can have sent it,
    first_ms = (responses.first_ns - samples.sent_ns) / 1e6
    arrived_ms = np.cumsum(np.column_stack([first_ms, responses.gap_us.reshape(-1, 2) / 1e3]), axis=1)
    assert (arrived_ms >= [[39, 79, 119]]).all()
    assert ((samples.done_ns - samples.sent_ns) / 1e6 >= arrived_ms[:, -1] - 0.01).all()
    # and not all of them when the last one was.
    assert responses.gap_us.max() >= 20_000


@ON_BOTH
def test_a_request_can_have_any_number_of_responses(decoupled: TritonService) -> None:
    plan = answering(decoupled, *((count, 1, -1, count % 2) for count in range(5)))
    samples = offer(plan, Concurrency(3), requests=100)
    assert samples.responses
    assert samples.ok.all()
    assert set(samples.responses.count.tolist()) == {0, 1, 2, 3, 4}
    none = samples.responses.count == 0
    assert (samples.responses.first_ns[none] == samples.done_ns[none]).all()
    assert (samples.received[none] == 0).all()
    assert (samples.received[~none] >= 16 * samples.responses.count[~none]).all()
    # Those under way have begun to have some.
    assert 0 <= len(samples.responses.gap_us) - np.maximum(samples.responses.count - 1, 0).sum() <= 12


@ON_BOTH
def test_an_error_in_the_middle_fails_the_request_and_no_other(decoupled: TritonService) -> None:
    samples = offer(answering(decoupled, (5, 2, 2, 0), (1, 0, -1, 1)), Concurrency(1), requests=20)
    assert samples.responses
    assert samples.errors == {"UNKNOWN: the model says no": np.count_nonzero(~samples.ok)}
    assert samples.ok.tolist() == [number % 2 == 1 for number in range(len(samples))]
    # Two before the error; and what comes after it is not the next request's.
    assert samples.responses.count.tolist() == [1 if ok else 2 for ok in samples.ok]


def test_an_open_loop_over_streams_keeps_its_schedule(decoupled: TritonService) -> None:
    samples = offer(answering(decoupled, (2, 50, -1, 0)), Replay("test", tuple(range(0, 400_000_000, 10_000_000))))
    sent_ns = np.sort(samples.sent_ns)
    assert samples.ok.all()
    assert (np.diff(sent_ns) == 10_000_000).all()
    assert len(samples) == 40


@pytest.mark.slow
def test_a_request_over_a_stream_has_a_deadline(decoupled: TritonService) -> None:
    plan = answering(decoupled, (2, 400, -1, 0), (1, 0, -1, 1), request_timeout_s=0.5)
    samples = offer(plan, Concurrency(1), requests=4)
    assert samples.ok.tolist()[:4] == [False, True] * 2
    assert samples.errors == {"DEADLINE_EXCEEDED: no answer within 0.5 s": 2}
    assert samples.responses
    assert samples.responses.count[samples.ok].tolist() == [1, 1]


def test_streams_stay_open_from_level_to_level(decoupled: TritonService) -> None:
    plan = answering(decoupled, (2, 1, -1, 0))
    with WorkerEngine(replace(plan, connections=2)) as engine:
        worker = process_of(engine)
        seen = []
        for _ in range(6):
            samples = engine.offer(Concurrency(8), until_requests(50), first_look_s=0.05)
            assert samples.ok.all()
            assert engine.ask(plan.workload.requests[0])
            seen.append(({c.laddr.port for c in worker.net_connections() if c.raddr}, worker.num_fds()))
        assert len(seen[0][0]) == 2
        # Threads are gRPC's own to choose, within limits.
        assert seen[1:] == seen[:1] * 5
        assert worker.num_threads() < 30


def test_one_request_of_its_own_brings_its_first_response(decoupled: TritonService) -> None:
    plan = answering(decoupled, (3, 1, -1, 0), (3, 1, 0, 0))
    with WorkerEngine(plan) as engine:
        good, bad = plan.workload.requests
        answer = service_pb2.ModelInferResponse.FromString(engine.ask(good))
        assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == [3, 1, -1, 0]
        with pytest.raises(ServerError, match="UNKNOWN: the model says no"):
            engine.ask(bad)


@ON_BOTH
def test_nothing_is_cancelled_that_is_still_to_be_answered(services: Services, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    diary.touch()
    server = services.load("decoupled", config_text(more=DECOUPLED, diary=diary))
    # Only the first response is waited for; the deadline passes; an error comes in the middle.
    plan = answering(server, (4, 50, -1, 0))
    with WorkerEngine(plan) as engine:
        engine.ask(plan.workload.requests[0])
    late = offer(answering(server, (2, 300, -1, 0), request_timeout_s=0.1), Concurrency(1), requests=1)
    assert not late.ok.any()
    failed = offer(answering(server, (4, 50, 0, 0)), Concurrency(1), requests=1)
    assert not failed.ok.any()
    answered = lines_of(diary, 3)
    assert len(answered) >= 3
    assert set(answered) == {"whole"}


def test_asked_for_whole_a_request_brings_all_of_its_responses(decoupled: TritonService) -> None:
    plan = answering(decoupled, (3, 1, -1, 0), (0, 1, -1, 0), (2, 1, -1, 1), (3, 1, 1, 0))
    with asking(plan) as ask:
        replies = ask([[request] for request in plan.workload.requests])
    assert [len(reply.responses) for (reply,) in replies] == [3, 0, 2, 0]
    assert [reply.error for (reply,) in replies] == [None, None, None, "UNKNOWN: the model says no"]
    (last,) = read_outputs(replies[2][0].responses[1])
    assert last.values.tolist() == [[2, 1, -1, 1]]


def test_an_answer_must_be_as_expected(zeros: tuple[TritonService, Workload]) -> None:
    server, load = zeros
    (right,) = load.requests
    requests = (replace(right, expected={"OUT": bytes(400_000)}), replace(right, expected={"OUT": b"else"}))
    plan = Plan("grpcio", server.grpc, replace(load, streams=(requests,)), 10)
    samples = offer(plan, Concurrency(1), requests=10)
    assert samples.ok.tolist() == [number % 2 == 0 for number in range(len(samples))]
    assert set(samples.errors) == {"DATA_LOSS: output OUT differs from what --input-data expects"}
    assert (samples.received > 400_000).all()


def test_every_response_must_be_as_expected(decoupled: TritonService) -> None:
    plan = answering(decoupled, (2, 1, -1, 0), (0, 1, -1, 0))
    twice, never = plan.workload.requests
    same = np.array([2, 1, -1, 0], np.float32).tobytes()
    requests = (replace(twice, expected={"OUT": same}), replace(twice, expected={"OUT": bytes(16)}))
    samples = offer(replace(plan, workload=replace(plan.workload, streams=(requests,))), Concurrency(1), requests=10)
    assert list(samples.errors) == ["DATA_LOSS: output OUT differs from what --input-data expects"]
    assert samples.ok.tolist() == [number % 2 == 0 for number in range(len(samples))]
    streams = ((replace(never, expected={"OUT": same}),),)
    samples = offer(replace(plan, workload=replace(plan.workload, streams=streams)), Concurrency(1), requests=2)
    assert [message.partition(":")[0] for message in samples.errors] == ["DATA_LOSS"]


def test_a_server_that_dies_ends_streams_in_errors(services: Services) -> None:
    server = services.start("decoupled", config_text(more=DECOUPLED))
    killed: list[float] = []

    def watch(samples: Samples) -> float | None:
        if not killed and len(samples) >= 20:
            server.kill()
            killed.append(samples.wall_s)
        return None if killed and samples.wall_s > killed[0] + 0.5 else 0.02

    with WorkerEngine(answering(server, (2, 5, -1, 0))) as engine:
        samples = engine.offer(Concurrency(4), watch, first_look_s=0.05)
    assert samples.ok[:20].all()
    assert 4 <= sum(samples.errors.values()) < 200
    assert {message.partition(": ")[0] for message in samples.errors} == {"UNAVAILABLE"}, samples.errors


@pytest.fixture(params=[False, True], ids=["unary", "streams"])
def stateful(services: Services, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., tuple[Plan, Path]]:
    """A stateful model, and where it keeps its diary."""

    def make(ids: str = "TYPE_UINT64", **options: float | None) -> tuple[Plan, Path]:
        diary = tmp_path / "diary"
        diary.touch()
        # Triton 2.51 cannot hand strings to a model for the places without a sequence that `direct` has.
        strategy = "oldest { max_candidate_sequences: 16 }" if ids == "TYPE_STRING" else ""
        config = config_text(more=stateful_config(strategy, ids) + DECOUPLED * request.param, diary=diary)
        server = services.load("stateful", config)
        sequences = Sequences(**options)  # type: ignore[arg-type]  # some are whole numbers
        stream = [[place, STREAM, 0, 0] for place in range(STREAM)]
        load = workload(server.model, [stream] * 2, RequestOptions(sequences=sequences, decoupled=request.param))
        return Plan("grpcio", server.grpc, load, 10), diary

    return make


def lines_of(diary: Path, least: int) -> list[str]:
    """The lines of a model's diary; waits until there are so many, or for a while."""
    until = time.monotonic() + 30
    while len(lines := diary.read_text().splitlines()) < least and time.monotonic() < until:
        time.sleep(0.05)
    return lines


def entries(diary: Path, ended: int) -> list[tuple[int, int, int]]:
    """Id, length, and sequences alive, of each that ended; waits until so many have, or for a while."""
    told = [line.split() for line in lines_of(diary, ended)]
    return [(int(number), int(length), int(alive)) for number, length, alive in told]


@pytest.mark.slow
@pytest.mark.parametrize("load", [Concurrency(6), RequestRate(400)])
def test_sequences_are_whole_and_so_many_at_once(stateful: Callable[..., tuple[Plan, Path]], load: Load) -> None:
    plan, diary = stateful(length=12, variation=0.25, live=6, first_id=1_000)
    with WorkerEngine(plan, processes=2) as engine:
        for _ in range(2):
            samples = engine.offer(load, until_requests(400), first_look_s=0.05)
            assert samples.errors == {}
            assert samples.ok.all()
    ended = entries(diary, 50)
    numbers = [number for number, _, _ in ended]
    lengths = [length for _, length, _ in ended]
    assert len(set(numbers)) == len(numbers)
    assert min(numbers) >= 1_000
    # All have ended, those that the end of the load cut short included.
    assert set(range(min(numbers), min(numbers) + 12)) <= set(numbers)
    assert ended[-1][2] == 1
    assert max(alive for _, _, alive in ended) == 6
    short = sum(length < 9 for length in lengths)
    assert short <= 2 * 6
    assert max(lengths) <= 15
    # Of the seven from 9 to 15, by chance.
    assert len({length for length in lengths if length >= 9}) >= 5
    assert np.mean([length for length in lengths if length >= 9]) == pytest.approx(12, abs=1.2)


def test_a_sequence_is_a_stream_of_the_input_data(stateful: Callable[..., tuple[Plan, Path]]) -> None:
    plan, diary = stateful(length=None)
    samples = offer(plan, Concurrency(3), requests=100)
    assert samples.errors == {}
    lengths = [length for _, length, _ in entries(diary, 20)]
    assert sum(length != STREAM for length in lengths) <= 3


@ON_BOTH
def test_ids_of_text_reach_the_model(stateful: Callable[..., tuple[Plan, Path]]) -> None:
    plan, diary = stateful("TYPE_STRING", length=3, variation=0, first_id=500, text_ids=True)
    samples = offer(plan, Concurrency(3), requests=30)
    assert samples.errors == {}
    ended = entries(diary, 10)
    assert len({number for number, _, _ in ended}) == len(ended)
    assert min(number for number, _, _ in ended) == 500
    assert {length for _, length, _ in ended[:-3]} == {3}


@pytest.mark.parametrize(
    ("services", "load"),
    [on_fake(Concurrency(3)), on_fake(RequestRate(200)), on_triton(Concurrency(3))],
    indirect=["services"],
)
def test_each_request_to_an_iterative_model_is_answered_in_all_its_steps(steps: TritonService, load: Load) -> None:
    options = RequestOptions(sequences=Sequences(iterative=True), decoupled=True)
    plan = Plan("grpcio", steps.grpc, workload(steps.model, [[[4, 0, 0, 0], [2, 0, 0, 0]]], options), 10)
    samples = offer(plan, load, requests=40)
    assert samples.errors == {}
    assert samples.responses
    assert set(samples.responses.count.tolist()) == {2, 4}
    with WorkerEngine(plan) as engine:
        assert read_outputs(engine.ask(plan.workload.requests[0]))[0].values[0, 0] == 3
    with asking(plan) as ask:
        ((four,), (two,)) = ask(some_of(plan.workload, made_up=False))
    assert [read_outputs(each)[0].values[0, 0] for each in four.responses] == [3, 2, 1, 0]
    assert len(two.responses) == 2


@pytest.fixture
def steps(services: Services) -> TritonService:
    batching = stateful_config("iterative_sequence: true oldest { max_candidate_sequences: 16 }")
    return services.load("steps", config_text(more=batching + DECOUPLED))


def test_one_request_of_its_own_is_a_sequence(stateful: Callable[..., tuple[Plan, Path]]) -> None:
    plan, diary = stateful(first_id=7)
    with WorkerEngine(plan) as engine:
        assert engine.ask(plan.workload.requests[0])
    assert entries(diary, 1) == [(7, 1, 1)]


@ON_BOTH
def test_asked_for_whole_a_line_is_a_sequence(stateful: Callable[..., tuple[Plan, Path]]) -> None:
    plan, diary = stateful(first_id=7)
    with asking(plan) as ask:
        replies = ask(plan.workload.streams)
    sums = [[read_outputs(*reply.responses)[0].values[0, 0] for reply in line] for line in replies]
    assert sums == [[0, 1, 3, 6, 10]] * 2
    assert sorted((number, length) for number, length, _ in entries(diary, 2)) == [(7, STREAM), (8, STREAM)]


@pytest.fixture
def zeros(services: Services) -> Iterator[tuple[TritonService, Workload]]:
    """A model that hands back 400 kB of zeros, on a server that compresses its answers."""
    config = config_text().replace("dims: [ 4 ]", "dims: [ 100000 ]")
    server = services.start("identity", config, "--grpc-infer-response-compression-level=high")
    yield server, workload(server.model, [[[0] * 100_000]], RequestOptions())
    server.ports.server.stop(grace_s=0.5)


@pytest.mark.parametrize(
    ("services", "compression"),
    [on_fake("gzip"), on_fake("deflate"), on_fake(None), on_triton("gzip")],
    indirect=["services"],
)
def test_compression_both_ways(zeros: tuple[TritonService, Workload], compression: Compression | None) -> None:
    server, load = zeros
    with Relay(server.grpc.address) as relay:
        plan = Plan("grpcio", Endpoint(relay.address), load, 10, compression=compression)
        samples = offer(plan, Concurrency(2), requests=10)
    assert samples.ok.all()
    assert (samples.received > 400_000).all()
    # What is under way when all ends is sent, too.
    assert relay.received < 10_000 * (len(samples) + 2)
    if compression:
        assert relay.sent < 10_000 * (len(samples) + 2)
    else:
        assert relay.sent > 400_000 * len(samples)


@pytest.mark.parametrize("connections", [1, 3])
def test_several_connections_share_the_load(zeros: tuple[TritonService, Workload], connections: int) -> None:
    server, load = zeros
    plan = Plan("grpcio", server.grpc, load, 10, connections=connections)
    with WorkerEngine(plan) as engine:
        worker = process_of(engine)
        assert engine.offer(Concurrency(6), until_requests(20), first_look_s=0.05).ok.all()
        assert len([c for c in worker.net_connections() if c.raddr]) == connections


def test_tls_with_certificates_of_both(
    fake_triton: TritonInstallation,
    model_repository: ModelRepositoryFactory,
    tmp_path: Path,
    certificates: Certificates,
) -> None:
    launch = Launch(model_repository.path, model_repository.add(), tmp_path / "log", 30)
    with grpcs_triton(fake_triton, launch, certificates, mutual=True) as endpoint:
        plan = Plan("grpcio", endpoint, four_zeros(launch.model), 10)
        assert offer(plan, Concurrency(2)).ok.all()
        elsewhere = replace(certificates.mutual, server_name="triton.example")
        assert offer(replace(plan, endpoint=replace(endpoint, tls=elsewhere)), Concurrency(2)).ok.all()
        for wrong in (
            certificates.trusting,
            replace(certificates.mutual, ca=certificates.other_ca),
            replace(certificates.mutual, server_name="elsewhere.example"),
        ):
            samples = offer(replace(plan, endpoint=replace(endpoint, tls=wrong)), Concurrency(1), requests=2)
            assert [message.partition(":")[0] for message in samples.errors] == ["UNAVAILABLE"]


def test_headers_go_with_every_request(services: Services) -> None:
    server = services.start("identity", config_text(), "--grpc-restricted-protocol=inference:key=secret")
    endpoint = replace(server.grpc, headers=(("triton-grpc-protocol-key", "secret"),))
    plan = Plan("grpcio", endpoint, four_zeros(server.model), 10)
    assert offer(plan, Concurrency(2)).ok.all()
    samples = offer(replace(plan, endpoint=replace(endpoint, headers=())), Concurrency(1), requests=2)
    assert "expecting header 'triton-grpc-protocol-key'" in next(iter(samples.errors))
