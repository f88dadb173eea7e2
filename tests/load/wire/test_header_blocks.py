from __future__ import annotations

import hpack
import pytest
from support.connections import block_of
from support.http2_server_side import GOOD_HEADERS, GOOD_TRAILERS

from tuner.load.wire.frames import ProtocolError
from tuner.load.wire.header_blocks import OK, HeaderBlocks, Meaning, request_block
from tuner.options.endpoint import Endpoint, Tls


def status(*headers: tuple[str, str]) -> str | None:
    return HeaderBlocks().meaning(block_of(list(headers))).status


def test_a_request_says_what_grpc_wants() -> None:
    endpoint = Endpoint("triton.example:8001", tls=Tls(), headers=(("authorization", "Bearer abc"), ("x-team", "")))
    decoded = hpack.Decoder().decode(request_block(endpoint))
    assert [(str(name), str(value)) for name, value in decoded] == [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", "/inference.GRPCInferenceService/ModelInfer"),
        (":authority", "triton.example:8001"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "tritontune"),
        ("authorization", "Bearer abc"),
        ("x-team", ""),
    ]


def test_a_request_is_the_same_each_time_and_changes_no_table() -> None:
    block = request_block(Endpoint("127.0.0.1:8001", headers=(("authorization", "Bearer abc"),)))
    decoder = hpack.Decoder()
    decoder.header_table_size = decoder.max_allowed_table_size = 0
    first, second = decoder.decode(block), decoder.decode(block)
    assert first == second
    assert all(isinstance(pair, hpack.NeverIndexedHeaderTuple) for pair in list(first)[3:])


def test_what_begins_an_answer_says_nothing_yet() -> None:
    assert HeaderBlocks().meaning(block_of(GOOD_HEADERS)) == Meaning(None)


def test_a_good_status() -> None:
    assert status(*GOOD_TRAILERS) == OK


@pytest.mark.parametrize(
    ("number", "code"), [("1", "CANCELLED"), ("13", "INTERNAL"), ("16", "UNAUTHENTICATED"), ("17", "status 17")]
)
def test_a_bad_status_has_its_name_and_message(number: str, code: str) -> None:
    assert status(("grpc-status", number), ("grpc-message", "no")) == f"{code}: no"


@pytest.mark.parametrize("number", ["", "-1", "x", "0x0", "00", "²", "\u0660", "9" * 5000])
def test_a_status_that_is_no_number_is_not_good(number: str) -> None:
    said = status(("grpc-status", number))
    assert said
    assert said.startswith(f"status {number}"[:200])


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("all%20is%20lost%21", "all is lost!"),
        ("50% off%", "50% off%"),
        ("na%C3%AFve %E2%98%83", "naïve ☃"),
        ("%ff%fe", "\ufffd\ufffd"),
        ("two%0Alines", "two lines"),
        ("", "no details"),
    ],
)
def test_messages_are_percent_encoded(message: str, shown: str) -> None:
    assert status(("grpc-status", "13"), ("grpc-message", message)) == f"INTERNAL: {shown}"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        ("400", "INTERNAL"),
        ("401", "UNAUTHENTICATED"),
        ("403", "PERMISSION_DENIED"),
        ("404", "UNIMPLEMENTED"),
        ("429", "UNAVAILABLE"),
        ("500", "UNKNOWN"),
        ("502", "UNAVAILABLE"),
        ("503", "UNAVAILABLE"),
        ("504", "UNAVAILABLE"),
        ("302", "UNKNOWN"),
    ],
)
def test_an_http_status_counts_where_there_is_no_other(number: str, code: str) -> None:
    assert status((":status", number)) == f"{code}: the server answered with HTTP status {number}"
    assert status((":status", number), ("grpc-status", "7")) == "PERMISSION_DENIED: no details"


def test_an_announcement_is_not_the_answer() -> None:
    assert HeaderBlocks().meaning(block_of([(":status", "100")])) == Meaning(None, informational=True)


def test_no_table_is_kept() -> None:
    """Else a block could mean another thing the second time."""
    blocks = HeaderBlocks()
    writer = hpack.Encoder()
    first = writer.encode([("grpc-status", "0")])
    second = writer.encode([("grpc-status", "0")])
    assert first != second
    assert blocks.meaning(first).status == OK
    with pytest.raises(ProtocolError):
        blocks.meaning(second)


def test_a_server_may_say_that_it_keeps_no_table_or_leave_it() -> None:
    for said in (b"", b"\x20", b"\x20\x20"):
        assert HeaderBlocks().meaning(said + b"\0\x0bgrpc-status\x010").status == OK
    with pytest.raises(ProtocolError):
        HeaderBlocks().meaning(b"\x21")


@pytest.mark.parametrize("block", [b"\xff", b"\x80", b"\0\x7f", b"\0\x01\xff\x01a", b"\xff" * 20, b"\x41\xff\xff"])
def test_a_block_that_cannot_be_decoded_is_an_error(block: bytes) -> None:
    with pytest.raises(ProtocolError):
        HeaderBlocks().meaning(block)


def test_a_list_of_headers_has_its_bounds() -> None:
    with pytest.raises(ProtocolError):
        HeaderBlocks().meaning(block_of([("x", "a" * 70_000)]))


def test_what_it_remembers_has_its_bounds() -> None:
    blocks = HeaderBlocks()
    for number in range(10_000):
        said = blocks.meaning(b"\0\x0bgrpc-status\x0213\0\x0cgrpc-message\x06%06d" % number).status
        assert said == f"INTERNAL: {number:06}"
    assert len(blocks._known) <= 4096
