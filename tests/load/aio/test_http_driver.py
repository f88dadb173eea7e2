"""The driver against web servers that do what a Triton does seldom or never."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from contextlib import closing

import numpy as np
import pytest
from support import offers
from support.command_line import await_that
from support.relay import sockets_of
from support.web_peer import Asked, Reply, WebPeer
from tritonclient.grpc import service_pb2

from tuner.core.loads import Concurrency, Load, RequestRate
from tuner.load.aio.http_driver import HttpDriver
from tuner.load.engine import WorkerEngine
from tuner.load.protocols import Samples
from tuner.load.workload import Plan, Request, Sequences, Workload
from tuner.options.endpoint import Endpoint
from tuner.testing.engine_contract import until_requests

HEAD = b'{"parameters":{"binary_data_output":true}}'
REQUEST = Request(HEAD + b"\1\2\3", len(HEAD))


def answer_of(*outputs: tuple[str, bytes], spoilt: bytes = b"") -> Reply:
    """As a Triton would give it."""
    head = {
        "model_name": "m",
        "model_version": "1",
        "outputs": [
            {"name": name, "datatype": "UINT8", "shape": [len(raw)], "parameters": {"binary_data_size": len(raw)}}
            for name, raw in outputs
        ],
    }
    text = json.dumps(head).encode()
    body = text + b"".join(raw for _, raw in outputs) + spoilt
    return Reply(body=body, headers={"Inference-Header-Content-Length": str(len(text))})


STRANGE = "the answer is not KServe v2 with binary tensors"
GOOD = answer_of(("OUT", b"\1\2\3"))


def offer(
    endpoint: Endpoint,
    *requests: Request,
    load: Load = Concurrency(1),  # noqa: B008 (frozen)
    count: int = 10,
    model: str = "m",
    version: str = "",
    sequences: Sequences | None = None,
) -> Samples:
    workload = Workload(model, (requests or (REQUEST,),), version, sequences=sequences)
    # In this process, which saves the start of another.
    with closing(HttpDriver(Plan("http", endpoint, workload, 5))) as driver:
        return offers.offer(driver, load, offers.count(count))


def offer_to(answer: Callable[[Asked], Reply], *requests: Request, **options: object) -> tuple[Samples, list[Asked]]:
    with WebPeer(answer) as peer:
        samples = offer(Endpoint(peer.address, "http"), *requests, **options)  # type: ignore[arg-type]  # by name
        return samples, peer.asked


def only_error(samples: Samples) -> str:
    assert not samples.ok.any()
    (error,) = samples.errors
    return error


class TestWhatIsSent:
    def test_the_body_and_how_much_of_it_is_json(self) -> None:
        samples, asked = offer_to(lambda _: GOOD)
        assert samples.ok.all()
        assert asked[0].line == "POST /v2/models/m/infer"
        assert asked[0].body == REQUEST.body
        assert asked[0].headers["inference-header-content-length"] == str(len(HEAD))

    def test_json_alone(self) -> None:
        _, asked = offer_to(lambda _: GOOD, Request(HEAD))
        assert asked[0].body == HEAD
        assert asked[0].headers["content-type"] == "application/json"
        assert "inference-header-content-length" not in asked[0].headers

    def test_the_model_and_its_version(self) -> None:
        _, asked = offer_to(lambda _: GOOD, model="a b/c", version="3")
        assert asked[0].line == "POST /v2/models/a%20b%2Fc/versions/3/infer"

    def test_nothing_that_nobody_asked_for(self) -> None:
        _, asked = offer_to(lambda _: Reply(headers={"set-cookie": "a=b"}))
        assert {name.lower() for asks in asked for name in asks.headers} == {
            "host",
            "content-type",
            "content-length",
            "inference-header-content-length",
        }

    def test_headers_of_the_endpoint(self) -> None:
        with WebPeer(lambda _: GOOD) as peer:
            headers = (("authorization", "Bearer abc"), ("host", "triton.example"))
            assert offer(Endpoint(peer.address, "http", headers=headers)).ok.all()
            assert {asked.headers["host"] for asked in peer.asked} == {"triton.example"}
            assert {asked.headers["authorization"] for asked in peer.asked} == {"Bearer abc"}

    def test_no_proxy_of_the_environment_is_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        assert offer_to(lambda _: GOOD)[0].ok.all()

    @pytest.mark.parametrize("load", [Concurrency(2), RequestRate(200, "constant")])
    def test_sequences_have_their_marks(self, load: Load) -> None:
        samples, asked = offer_to(
            lambda _: GOOD, load=load, count=30, sequences=Sequences(length=3, variation=0, live=2, first_id=7)
        )
        assert samples.ok.all()
        marks: dict[int, list[tuple[bool, bool]]] = {}
        for asks in asked:
            length = int(asks.headers["inference-header-content-length"])
            parameters = json.loads(asks.body[:length])["parameters"]
            assert parameters["binary_data_output"]
            assert asks.body[length:] == b"\1\2\3"
            mark = (parameters["sequence_start"], parameters["sequence_end"])
            marks.setdefault(parameters["sequence_id"], []).append(mark)
        whole = [(True, False), (False, False), (False, True)]
        assert set(marks) == set(range(7, 7 + len(marks)))
        assert len(marks) >= 10
        assert sum(mark != whole for mark in marks.values()) <= 2


class TestAnswers:
    @pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")
    def test_large_bodies_both_ways(self) -> None:
        large = Request(HEAD + np.random.default_rng(0).bytes(5 << 20), len(HEAD))
        samples, asked = offer_to(lambda asks: Reply(body=asks.body), large, load=Concurrency(2), count=8)
        assert samples.ok.all()
        assert set(samples.received.tolist()) == {len(large.body)}
        assert {len(asks.body) for asks in asked} == {len(large.body)}

    def test_what_is_compressed_is_counted_as_it_came(self) -> None:
        body = gzip.compress(bytes(100_000))
        samples, _ = offer_to(lambda _: Reply(body=body, headers={"content-encoding": "gzip"}))
        assert samples.ok.all()
        assert set(samples.received.tolist()) == {len(body)}

    def test_in_pieces(self) -> None:
        pieces = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        samples, _ = offer_to(lambda _: Reply(raw=pieces))
        assert samples.ok.all()
        assert set(samples.received.tolist()) == {5}

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("reply", "error"),
        [
            (GOOD, None),
            (answer_of(("OTHER", b"12"), ("OUT", b"\1\2\3")), None),
            (answer_of(("OUT", b"\1\2\4")), "DATA_LOSS: output OUT differs from what --input-data expects"),
            (answer_of(("IN", b"\1\2\3")), "DATA_LOSS: output OUT is missing, but --input-data expects it"),
            (
                answer_of(("OUT", b"\1\2\3"), spoilt=b"!"),
                "DATA_LOSS: the answer has 4 bytes of tensors, but declares 3",
            ),
            *(
                (Reply(body=body), f"DATA_LOSS: {STRANGE}")
                for body in (b"OK", b"[]", b'{"outputs": [1]}', b"[" * 100_000)
            ),
            (
                Reply(body=b'{"outputs": [{"name": "OUT", "datatype": "UINT8", "shape": [3], "data": [1, 2, 3]}]}'),
                f"DATA_LOSS: {STRANGE}",
            ),
            (Reply(body=GOOD.body, headers={"inference-header-content-length": "x"}), f"DATA_LOSS: {STRANGE}"),
        ],
    )
    def test_as_expected_or_not(self, reply: Reply, error: str | None) -> None:
        expecting = Request(REQUEST.body, REQUEST.json_length, {"OUT": b"\1\2\3"})
        samples, _ = offer_to(lambda _: reply, expecting)
        assert list(samples.errors) == ([error] if error else [])

    def test_one_of_its_own_comes_in_the_form_of_grpc(self) -> None:
        with WebPeer(lambda _: GOOD) as peer:
            plan = Plan("http", Endpoint(peer.address, "http"), Workload("m", ((REQUEST,),)), 5)
            with WorkerEngine(plan) as engine:
                answer = service_pb2.ModelInferResponse.FromString(engine.ask(REQUEST))
        assert (answer.model_name, answer.outputs[0].name, answer.raw_output_contents[0]) == ("m", "OUT", b"\1\2\3")


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "code"),
        [
            (400, "INVALID_ARGUMENT"),
            (401, "UNAUTHENTICATED"),
            (403, "PERMISSION_DENIED"),
            (404, "NOT_FOUND"),
            (408, "DEADLINE_EXCEEDED"),
            (413, "RESOURCE_EXHAUSTED"),
            (418, "UNKNOWN"),
            (429, "RESOURCE_EXHAUSTED"),
            (500, "INTERNAL"),
            (501, "UNIMPLEMENTED"),
            (502, "UNAVAILABLE"),
            (503, "UNAVAILABLE"),
            (504, "DEADLINE_EXCEEDED"),
        ],
    )
    def test_a_status_has_the_code_of_grpc_and_the_servers_words(self, status: int, code: str) -> None:
        samples, _ = offer_to(lambda _: Reply(status, b'{"error": "no,\\n  thanks"}'), count=2)
        assert only_error(samples) == f"{code}: no, thanks"

    @pytest.mark.parametrize("body", [b"", b"<html>Sorry", b'{"error": 7}', b'["error"]', b"[" * 100_000, b"\xff"])
    def test_a_server_that_has_no_words(self, body: bytes) -> None:
        samples, _ = offer_to(lambda _: Reply(503, body), count=2)
        assert only_error(samples) == "UNAVAILABLE: HTTP 503 Service Unavailable"

    def test_nobody_is_followed_elsewhere(self) -> None:
        samples, asked = offer_to(lambda _: Reply(307, headers={"location": "/elsewhere"}), count=2)
        assert only_error(samples) == "UNKNOWN: HTTP 307 Temporary Redirect"
        assert {asks.line for asks in asked} == {"POST /v2/models/m/infer"}

    @pytest.mark.parametrize(
        "raw",
        [
            b"220 mail.example ESMTP\r\n",
            b"\0\0\x12\4\0\0\0\0\0",
            b"HTTP/1.1 two hundred\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n" + b"x" * 20_000,
        ],
    )
    def test_what_is_no_http(self, raw: bytes) -> None:
        samples, _ = offer_to(lambda _: Reply(raw=raw), count=2)
        assert only_error(samples).startswith("INTERNAL: not an HTTP response: ")

    @pytest.mark.parametrize(
        "raw",
        [
            b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nsh",
        ],
    )
    def test_half_an_answer(self, raw: bytes) -> None:
        samples, _ = offer_to(lambda _: Reply(raw=raw), count=2)
        assert only_error(samples) == "UNAVAILABLE: the connection ended in the middle of an answer"

    @pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 200"])
    def test_no_answer(self, raw: bytes) -> None:
        samples, asked = offer_to(lambda _: Reply(raw=raw), count=2)
        assert only_error(samples) == "UNAVAILABLE: the server closed the connection without an answer"
        # Each is tried once more, as the connection might have been an old one; and no more often.
        assert len(asked) == pytest.approx(2 * len(samples), abs=2)

    def test_a_host_that_nobody_knows(self) -> None:
        samples = offer(Endpoint("triton.invalid:8000", "http"), count=2)
        assert only_error(samples).startswith("UNAVAILABLE: cannot connect to triton.invalid:8000: ")


class TestConnections:
    def test_they_are_kept(self) -> None:
        _, asked = offer_to(lambda _: GOOD, load=Concurrency(3), count=60)
        assert len({asks.client for asks in asked}) == 3

    def test_a_server_that_hangs_up_after_each_answer_has_not_failed(self) -> None:
        samples, asked = offer_to(lambda _: Reply(body=GOOD.body, hang_up=True), load=Concurrency(3), count=100)
        assert samples.ok.all()
        assert max(Counter(asks.client for asks in asked).values()) == 1

    def test_a_server_that_says_that_it_hangs_up_has_not_failed(self) -> None:
        reply = Reply(body=GOOD.body, headers={"connection": "close"})
        samples, _ = offer_to(lambda _: reply, load=Concurrency(3), count=100)
        assert samples.ok.all()

    def test_one_that_was_ended_between_two_loads_is_not_missed(self) -> None:
        with WebPeer(lambda _: GOOD) as peer:
            plan = Plan("http", Endpoint(peer.address, "http"), Workload("m", ((REQUEST,),)), 5)
            with WorkerEngine(plan) as engine:
                assert engine.offer(Concurrency(3), until_requests(10), first_look_s=0.02).ok.all()
                with_them = sockets_of(engine)
                peer.hang_up()
                await_that(lambda: len(with_them - sockets_of(engine)) >= 3)
                samples = engine.offer(Concurrency(3), until_requests(10), first_look_s=0.02)
        assert samples.errors == {}


def test_requests_begin_with_the_path_of_the_endpoint() -> None:
    with WebPeer(lambda _: GOOD) as peer:
        offer(Endpoint(peer.address, "http", path="/prefix"), count=3)
    assert {asked.line for asked in peer.asked} == {"POST /prefix/v2/models/m/infer"}
