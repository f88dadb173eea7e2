from __future__ import annotations

from pathlib import Path

import pytest

from tuner.core.errors import Cause, LaunchError
from tuner.core.redaction import (
    argument_without_secrets,
    clean_file,
    keep_secret,
    keep_secret_of_argument,
    value_of_variable,
    without_known_secrets,
    without_secrets,
)


@pytest.mark.parametrize(
    "text",
    [
        "--http-restricted-api=health:admin-key=hunter2",
        "--grpc-restricted-protocol=hunter2",
        "password=hunter2",
        "Authorization: hunter2",
        '{"api_token": "hunter2"}',
        "{'secret': 'hunter2 and more'}",
        '{"key": "hunter2"}',
        "license-key=hunter2",
        "grpcs://user:hunter2@host:8001",
        "postgresql://user:hunter2@host/nights",
        "http://host:8002/metrics?token=hunter2",
        "https://account.blob.core.windows.net/models?sp=r&sig=hunter2",
        "https://bucket.s3.amazonaws.com/models?X-Amz-Signature=hunter2",
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
        '{"max_tokens": 256, "tokenizer": "bpe", "author": "me", "monkey": 1}',
    ],
)
def test_all_else_stays(text: str) -> None:
    assert without_secrets(text) == text


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("--http-restricted-api=health,metadata:admin=a b,c", "--http-restricted-api=health,metadata:admin=***"),
        ("--backend-config=vllm,hf-token=hunter2", "--backend-config=vllm,hf-token=***"),
        ("--license-key=a b c", "--license-key=***"),
        ("--cache-config=redis,password=a,b c;d", "--cache-config=redis,password=***"),
        ("--cache-config=redis,url=http://u:p@h,password=a", "--cache-config=redis,url=http://***@h,password=***"),
        ("--trace-config=opentelemetry,url=http://u:hunter2@host", "--trace-config=opentelemetry,url=http://***@host"),
        ("--cache-config=local,size=1048576", "--cache-config=local,size=1048576"),
        ("--exit-on-error", "--exit-on-error"),
    ],
)
def test_an_argument_keeps_what_makes_another_server_of_it(argument: str, told: str) -> None:
    assert argument_without_secrets(argument) == told


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("OMP_NUM_THREADS", "16", "16"),
        ("MY_BATCHES", "128", "128"),
        ("MY_SWITCH", "true", "true"),
        ("CUDA_VISIBLE_DEVICES", "GPU-1234", "GPU-1234"),
        ("LD_PRELOAD", "/usr/lib/libjemalloc.so", "/usr/lib/libjemalloc.so"),
        ("DOOR_PIN", "1234", "***"),
        ("PLAIN", "hunter2", "***"),
        ("HF_TOKEN", "1", "***"),
        ("TF_API_KEY", "hunter2", "***"),
    ],
)
def test_a_variable_is_told_where_it_makes_another_server_and_holds_no_secret(name: str, value: str, told: str) -> None:
    assert value_of_variable(name, value) == told


def test_what_is_known_to_be_secret_is_left_out_wherever_others_repeat_it(tmp_path: Path) -> None:
    keep_secret("authorization", "Bearer hunter2")
    assert without_known_secrets("refused hunter2") == "refused ***"
    error = LaunchError("refused hunter2", cause=Cause.CRASHED, last_words="it was hunter2")
    assert (str(error), error.last_words) == ("refused ***", "it was ***")
    log = tmp_path / "server.log"
    log.write_bytes(b"\xff hunter2 \xfe")
    clean_file(log)
    assert log.read_bytes() == b"\xff *** \xfe"
    clean_file(tmp_path / "none")


@pytest.mark.parametrize(
    "argument",
    [
        "--cache-config=redis,password=hunter2,more",
        "--cache-config=redis,url=http://user:pass@host,password=hunter2,more",
        "--trace-config=opentelemetry,url=http://user:hunter2,more@host",
        "--http-restricted-api=health:admin=hunter2,more",
    ],
)
def test_the_secret_of_an_argument_is_left_out_of_what_servers_say(argument: str) -> None:
    keep_secret_of_argument(argument)
    assert without_known_secrets("it said: hunter2,more.") == "it said: ***."


def test_the_password_of_a_url_is_left_out_of_what_servers_say() -> None:
    keep_secret("DATABASE", "postgres://user:hunter2@host/name")
    assert without_known_secrets("'DATABASE': 'postgres://user:hunter2@host/name'") == (
        "'DATABASE': 'postgres://user:***@host/name'"
    )


@pytest.mark.parametrize(("name", "value"), [("mode", "performance"), ("token", "short"), ("path", "/opt/v2/lib")])
def test_words_of_every_day_are_not_taken_for_secrets(name: str, value: str) -> None:
    keep_secret(name, value)
    assert without_known_secrets(f"a {value}") == f"a {value}"
