from __future__ import annotations

import pytest

from tuner.servers.triton_args import parse_triton_args


def test_arguments_of_tritonserver() -> None:
    assert parse_triton_args("--log-verbose=1") == ("--log-verbose=1",)
    assert parse_triton_args(["--allow-metrics=true", "--backend-config=python,shm-default-byte-size=1"]) == (
        "--allow-metrics=true",
        "--backend-config=python,shm-default-byte-size=1",
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("log-verbose=1", "'log-verbose=1' is no argument of tritonserver; write it as --triton-arg=--flag=value"),
        ("--log-verbose 1", "is no argument of tritonserver"),
        ("--", "is no argument of tritonserver"),
        ("--model-repository=/x", "--model-repository: tritontune serves a copy of the repository"),
        ("--grpc-port=1", "--grpc-port: tritontune chooses a free port"),
        ("--grpc-use-ssl=true", "without TLS"),
        ("--backend-config=python,shm-region-prefix-name=x", "tritontune knows the shared memory"),
    ],
)
def test_refuses_what_is_tritontunes_own(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_triton_args([text])
