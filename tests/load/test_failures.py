from __future__ import annotations

import grpc
import pytest

from tuner.core.errors import Cause, ServerError, ServerHungError
from tuner.load.failures import CODES, cause_of, describe, failed


def test_the_codes_are_grpcs() -> None:
    assert {code.value[0]: code.name for code in grpc.StatusCode} == dict(enumerate(CODES))


def test_a_failure_is_told_in_one_line_with_its_code() -> None:
    assert describe("INTERNAL", "first\n  second") == "INTERNAL: first second"
    assert describe("UNKNOWN", None) == "UNKNOWN: no details"


def test_a_long_failure_is_cut() -> None:
    line = describe("INTERNAL", "x" * 1_000)
    assert len(line) == 300
    assert line.endswith("...")


def test_outputs_that_do_not_fit_are_told_with_the_option_that_gives_them_room() -> None:
    said = (
        "shared memory size specified with the request for output 'OUT' (64 bytes) should be at least 400 bytes "
        "to hold the results"
    )
    advice = "increase --output-shared-memory-size"
    assert describe("INTERNAL", said) == f"INTERNAL: {said}; {advice}"
    assert describe("INTERNAL", said + "x" * 500).endswith(f"...; {advice}")


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("DEADLINE_EXCEEDED: Deadline Exceeded", Cause.HUNG),
        ("UNAVAILABLE: failed to connect to all addresses; last error: ...", Cause.CRASHED),
        ("UNAVAILABLE: Socket closed", Cause.CRASHED),
        ("UNAVAILABLE: connection lost: connection closed by the server", Cause.CRASHED),
        ("UNAVAILABLE: recvmsg:Connection reset by peer", Cause.CRASHED),
        ("INTERNAL: Stub process 'mlp_0_0' is not healthy.", Cause.CRASHED),
        ("INTERNAL: CUDA out of memory. Tried to allocate 2 GiB", Cause.OUT_OF_MEMORY),
        ("UNAVAILABLE: Exceeds maximum queue size", Cause.REQUESTS_FAILED),
        ("INVALID_ARGUMENT: unexpected shape for input 'X'", Cause.REQUESTS_FAILED),
    ],
)
def test_the_cause_is_read_from_the_line(line: str, cause: Cause) -> None:
    assert cause_of(line) is cause
    error = failed("the first request failed", line)
    assert error.cause is cause
    assert str(error) == f"the first request failed: {line}"
    assert type(error) is (ServerHungError if cause is Cause.HUNG else ServerError)
