from __future__ import annotations

import pytest

from tuner.redaction import without_secrets


@pytest.mark.parametrize(
    "text",
    [
        "--http-restricted-api=health:admin-key=hunter2",
        "password=hunter2",
        "Authorization: hunter2",
        '{"api_token": "hunter2"}',
        "{'secret': 'hunter2 and more'}",
        "grpcs://user:hunter2@host:8001",
        "aws_access_key=hunter2, region=x",
    ],
)
def test_what_may_be_secret_is_starred_out(text: str) -> None:
    told = without_secrets(text)
    assert "hunter2" not in told
    assert "***" in told


@pytest.mark.parametrize(
    "text",
    [
        "tritonserver 2.51.0 as a process, --log-verbose=1",
        "Triton 2.51.0, image nvcr.io/nvidia/tritonserver:25.01-py3 (nvcr.io/x@sha256:abc) in Docker, shm 1 GiB",
        "grpc://host:8001",
        '{"shape": {"X": [4]}}',
    ],
)
def test_all_else_stays(text: str) -> None:
    assert without_secrets(text) == text
