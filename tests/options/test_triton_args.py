from __future__ import annotations

import pytest

from tuner.options.groups import ServerOptions
from tuner.options.triton_args import parse_host_policies, parse_triton_args


def test_arguments_of_tritonserver() -> None:
    assert parse_triton_args("--log-verbose=1") == ("--log-verbose=1",)
    assert parse_triton_args(["--allow-metrics=true", "--backend-config=python,shm-default-byte-size=1"]) == (
        "--allow-metrics=true",
        "--backend-config=python,shm-default-byte-size=1",
    )


@pytest.mark.parametrize(
    "text",
    ["--log-info=true", "--exit-on-error=1", "--log-warning=false", "--grpc-keepalive-time=9", "--log-format=ISO8601"],
)
def test_what_changes_nothing_that_is_relied_on(text: str) -> None:
    assert parse_triton_args(text) == (text,)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("log-verbose=1", "'log-verbose=1' is not an argument of tritonserver; write it as --triton-arg=--flag=value"),
        ("--log-verbose 1", "is not an argument of tritonserver"),
        ("--", "is not an argument of tritonserver"),
        ("--model-repository=/x", "--model-repository cannot be set: tritontune serves a copy of the tuned repository"),
        ("--grpc-port=1", "--grpc-port cannot be set: tritontune chooses a free port"),
        ("--grpc-use-ssl=true", "without TLS"),
        ("--backend-config=python,shm-region-prefix-name=x", "tritontune recognises the shared memory"),
        ("--model-config-name=cpu", "--model-config-name cannot be set: Triton would serve configs/NAME.pbtxt"),
        ("--log-file=x.log", "--log-file cannot be set: tritontune reads the server's log"),
        ("--log-info=false", "--log-info must stay true, got 'false': tritontune reads"),
        ("--log-error=0", "--log-error must stay true, got '0'"),
        ("--exit-on-error=False", "--exit-on-error must stay true, got 'False': tritontune would wait"),
        ("--strict-readiness=false", "--strict-readiness must stay true"),
        ("--model-config-n=cpu", "--model-config-n abbreviates --model-config-name; write the whole name"),
        ("--exit-on=false", "--exit-on abbreviates --exit-on-error"),
    ],
)
def test_refuses_what_is_tritontunes_own(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_triton_args([text])


@pytest.mark.parametrize(
    "policy", ["mine,numa-node=0", "mine,cpu-cores=0-3", "mine,cpu-cores=0-3,8-11", "gpu_0,numa-node=1"]
)
def test_a_host_policy_becomes_an_argument(policy: str) -> None:
    options = ServerOptions.make({"host_policy": [policy], "triton_arg": ["--rate-limit=off"]})
    assert options.arguments == ("--rate-limit=off", f"--host-policy={policy}")


@pytest.mark.parametrize("policy", ["mine", "mine,numa-node=x", "mine,cores=0-3", ",numa-node=0", "a b,numa-node=0"])
def test_another_host_policy_is_refused(policy: str) -> None:
    with pytest.raises(ValueError, match="is not a host policy; write NAME,numa-node=N"):
        parse_host_policies([policy])
