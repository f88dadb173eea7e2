from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tuner.core.errors import JobError
from tuner.options.groups import LoadOptions, ServerOptions
from tuner.options.mounts import UserMount


def refusal(**options: Any) -> str:
    with pytest.raises(JobError) as raised:
        LoadOptions.make(options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_reads_texts_as_people_write_them() -> None:
    options = LoadOptions.make(
        {
            "shape": ["TOKENS:1,128", "a:b:3"],
            "batch_size": "4",
            "request_parameter": ["max_tokens:256:int", "stream:true:bool"],
            "queue_timeout": "20ms",
            "header": ["Authorization: Bearer abc"],
            "compression": "gzip",
            "sequence_length_variation": "0.5",
        }
    )
    assert options.shape == {"TOKENS": (1, 128), "a:b": (3,)}
    assert options.batch_size == 4
    assert options.request_parameter == {"max_tokens": 256, "stream": True}
    assert options.queue_timeout == 0.02
    assert options.header == (("authorization", "Bearer abc"),)
    assert options.sequence_length_variation == 0.5


def test_reads_what_a_job_file_says() -> None:
    options = LoadOptions.make(
        {
            "shape": {"TOKENS": [1, 128]},
            "request_parameter": {"temperature": 0.5, "name": "x", "deep": False},
            "header": {"x-user": "me"},
        }
    )
    assert options.shape == {"TOKENS": (1, 128)}
    assert options.request_parameter == {"temperature": 0.5, "name": "x", "deep": False}
    assert options.header == (("x-user", "me"),)


def test_comes_back_from_json_as_it_was() -> None:
    options = LoadOptions.make({"shape": ["A:1,2"], "header": ["a:b"], "request_parameter": ["n:1:int"]})
    assert LoadOptions.model_validate_json(options.model_dump_json()) == options


def test_input_data_is_a_word_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    file.write_text("{}")
    assert LoadOptions.make({"input_data": "zero"}).input_data == "zero"
    assert LoadOptions.make({"input_data": str(file)}).input_data == str(file)
    assert refusal(input_data="ramdon").startswith("--input-data: 'ramdon' is no such file; write random, zero, or")


def test_request_options_have_the_content_of_a_file_and_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    file.write_text("{}")
    options = {"input_data": str(file), "shape": ["A:1"], "header": ["authorization:secret"], "processes": 2}
    first = LoadOptions.make(options).request_options()
    file.write_text("{ }")
    second = LoadOptions.make(options).request_options()
    assert first.keys() == {"input_data", "shape"}
    assert first["input_data"] != second["input_data"]
    assert first["shape"] == second["shape"] == {"A": [1]}
    assert LoadOptions().request_options() == {}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"batch_size": 0}, "--batch-size: must be >= 1, got 0"),
        ({"shape": ["A:0"]}, "--shape: 'A:0' is not a shape"),
        ({"request_parameter": ["a:b"]}, "--request-parameter: 'a:b' is not a parameter"),
        ({"header": {"a": [1]}}, "--header: a: [1] must be text"),
        ({"header": ["nope"]}, "--header: 'nope' is not a header; write NAME:VALUE"),
        ({"compression": "zip"}, "--compression: must be 'gzip' or 'deflate', got 'zip'"),
        ({"shared_memory": "gpu"}, "--shared-memory: must be 'none', 'system' or 'cuda', got 'gpu'"),
        ({"queue_timeout": "5"}, "--queue-timeout: 5 has no unit; write 5s or 5m"),
        ({"connections": 0}, "--connections: must be >= 1, got 0"),
    ],
)
def test_names_the_option_and_what_would_be_right(options: dict[str, Any], complaint: str) -> None:
    assert refusal(**options).startswith(complaint)


OF_A_SERVER = {
    "image": "some/image:1",
    "gpus": "0,1",
    "shm_size": "2GiB",
    "memory": "4g",
    "mount": ["/weights:/weights:ro", "cache:/cache"],
    "env": ["A=b", "HOME"],
    "network": "host",
    "user": "1000:1000",
    "docker_arg": ["cpuset_cpus=0-3", "cap_add=[SYS_PTRACE]"],
    "triton_arg": ["--log-verbose=1"],
}


def test_what_a_server_is_to_be_like() -> None:
    options = ServerOptions.make(OF_A_SERVER)
    assert (options.shm_size, options.memory) == (2 << 30, 4 << 30)
    assert options.mount[0] == UserMount("bind", "/weights", "/weights", writable=False)
    assert options.env == {"A": "b", "HOME": None}
    assert options.docker_arg == {"cpuset_cpus": "0-3", "cap_add": ["SYS_PTRACE"]}
    assert ServerOptions.model_validate_json(options.model_dump_json()) == options


def test_the_same_in_a_job_file() -> None:
    in_a_file = {
        **OF_A_SERVER,
        "gpus": [0, 1],
        "shm_size": 2 << 30,
        "env": {"A": "b", "HOME": None},
        "docker_arg": {"cpuset_cpus": "0-3", "cap_add": ["SYS_PTRACE"]},
        "triton_arg": "--log-verbose=1",
    }
    assert ServerOptions.make(in_a_file, source="job.yaml") == ServerOptions.make(OF_A_SERVER)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"shm_size": "big"}, "--shm-size: 'big' is not a size; write a number with its unit"),
        ({"memory": -1}, "--memory: must be > 0, got -1"),
        ({"mount": ["/a"]}, "--mount: '/a' is not a mount; write it as SRC:DST or SRC:DST:ro"),
        ({"env": ["A-B=1"]}, "--env: 'A-B' is not a variable name; write NAME=VALUE"),
        ({"env": 3}, "--env: write variables as {NAME: VALUE} or NAME=VALUE"),
        ({"env": ["CUDA_VISIBLE_DEVICES=0"], "gpus": "1"}, "--env: 'CUDA_VISIBLE_DEVICES' conflicts with --gpus"),
        ({"network": "none"}, "--network: none: the load generator needs a network"),
        ({"docker_arg": ["mounts=[]"]}, "--docker-arg: mounts: use --mount"),
        ({"triton_arg": ["verbose"]}, "--triton-arg: 'verbose' is not an argument of tritonserver; write it as"),
        ({"gpus": "first"}, "--gpus: 'first' is not a GPU; write all, none, or indices and UUIDs"),
    ],
)
def test_names_what_a_server_cannot_be(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(JobError) as raised:
        ServerOptions.make(options)
    assert str(raised.value).startswith(complaint)
