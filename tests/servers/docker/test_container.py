from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from tuner.servers.docker.binds import Bind
from tuner.servers.docker.container import ContainerSpec, device_requests, gpus_flag
from tuner.servers.docker.container_options import ContainerOptions
from tuner.servers.docker.identity import ContainerUser, our_identity

SPEC = ContainerSpec(
    name="name",
    image="image:1",
    arguments=("tritonserver", "--id=a b"),
    binds=(Bind(Path("/a b"), Path("/c"), writable=True), Bind(Path("/d"), Path("/d"))),
    labels={"label": "value"},
    identity=ContainerUser(),
    options=ContainerOptions(shm_bytes=1024),
)


@pytest.fixture
def someone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(os, "getgid", lambda: 100)
    monkeypatch.setattr(os, "getgroups", lambda: [998, 100, 27])


def test_the_least_command() -> None:
    assert shlex.split(str(SPEC)) == [
        "docker",
        "run",
        "--rm",
        "--name=name",
        "--publish=127.0.0.1::8001",
        "--shm-size=1024",
        "--mount=type=bind,source=/a b,target=/c",
        "--mount=type=bind,source=/d,target=/d,readonly",
        "image:1",
        "tritonserver",
        "--id=a b",
    ]


@pytest.mark.usefixtures("someone")
def test_the_command_with_all_that_there_is() -> None:
    identity = our_identity(["name=userns"], raise_limits=True)
    asked = ContainerOptions(shm_bytes=1024, memory_bytes=2048)
    options = shlex.split(str(replace(SPEC, identity=identity, options=asked, binds=())))
    assert options[options.index("--shm-size=1024") + 1 : options.index("image:1")] == [
        "--memory=2048",
        "--memory-swap=2048",
        "--user=1000:100",
        "--group-add=27",
        "--group-add=998",
        "--userns=host",
        "--ulimit=memlock=-1",
        "--ulimit=stack=67108864",
        "--env=HOME=/tmp",
    ]


@pytest.mark.usefixtures("someone")
def test_a_container_runs_as_its_user() -> None:
    identity = our_identity(["name=seccomp,profile=default", "name=cgroupns"], raise_limits=False)
    assert (identity.user, identity.groups, identity.user_namespace) == ("1000:100", (27, 998), "")
    assert identity.ulimits == {}


def test_root_has_a_home_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert our_identity([], raise_limits=False).environment == {}


@pytest.mark.usefixtures("someone")
def test_to_a_rootless_engine_root_within_is_its_user() -> None:
    assert our_identity(["name=seccomp,profile=default", "name=rootless"], raise_limits=True) == ContainerUser(
        user="0:0"
    )


def test_a_port_and_a_network_for_who_is_elsewhere() -> None:
    options = shlex.split(str(replace(SPEC, publish_on="192.0.2.1", network="tuners")))
    assert "--publish=192.0.2.1::8001" in options
    assert "--network=tuners" in options


def test_neither_the_command_nor_the_record_of_it_has_secrets_and_both_have_all_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HANDED_ON", "hunter2")
    options = ContainerOptions(
        environment={"TOKEN": "hunter2", "PLAIN": "hunter2", "HANDED_ON": None, "OMP_NUM_THREADS": "4"},
        more={
            "labels": {"password": "hunter2", "team": "vision"},
            "entrypoint": ["tini", "--api-key=hunter2"],
            "cpuset_cpus": "0-3",
        },
    )
    arguments = ("tritonserver", "--http-restricted-api=health:admin-key=hunter2")
    command = str(
        replace(SPEC, identity=ContainerUser(environment={"HOME": "/of/ours"}), options=options, arguments=arguments)
    )
    record = ", ".join(options.words())
    assert "hunter2" not in command + record
    for word in ("--env=HOME=/of/ours", "--env=OMP_NUM_THREADS=4", "--env=HANDED_ON", "--label=team=vision"):
        assert word in shlex.split(command)
    assert "--http-restricted-api=health:admin-key=***" in shlex.split(command)
    assert "variables HANDED_ON=*** OMP_NUM_THREADS=4 PLAIN=*** TOKEN=***" in record
    assert "cpuset_cpus 0-3" in record


def test_gpus_as_docker_takes_them() -> None:
    assert device_requests(None) == device_requests("none") == []
    (every,) = device_requests("all")
    assert (every["Count"], every["Capabilities"]) == (-1, [["gpu"]])
    (some,) = device_requests("0,MIG-7c1e")
    assert (some["DeviceIDs"], some["Count"]) == (["0", "MIG-7c1e"], 0)
    assert gpus_flag("0,MIG-7c1e") == ['--gpus="device=0,MIG-7c1e"']
