"""The `docker run` that a trial records makes the same container as docker-py did."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml
from docker.models import containers as docker_py
from support.docker_image import IMAGE

from tuner.options.docker_arguments import _ELSEWHERE, _FLAGS, docker_run_options, parse_docker_args
from tuner.options.mounts import parse_mount
from tuner.servers.docker.binds import Bind
from tuner.servers.docker.container import ContainerSpec
from tuner.servers.docker.container_options import ContainerOptions
from tuner.servers.docker.identity import our_identity

with_the_command = pytest.mark.skipif(shutil.which("docker") is None, reason="the docker command is not installed")

# What the command line says on its own, and means the same by.
_OF_THE_CLIENT = {"AttachStdout", "AttachStderr", "StdinOnce", "Labels", "LogConfig", "ConsoleSize", "RestartPolicy"}

EVERYTHING = """
blkio_weight: 300
blkio_weight_device: [{Path: /dev/null, Weight: 200}]
cap_add: [SYS_PTRACE]
cap_drop: [MKNOD, CHOWN]
cgroup_parent: /tritontune
cgroupns: host
cpu_period: 50000
cpu_quota: 25000
cpu_shares: 512
cpuset_cpus: "0"
cpuset_mems: "0"
device_cgroup_rules: ["c 1:3 rwm"]
device_read_bps: [{Path: /dev/null, Rate: 1048576}]
device_write_iops: [{Path: /dev/null, Rate: 1000}]
devices: ["/dev/null:/dev/nothing:rw"]
dns: [127.0.0.53]
dns_opt: [timeout:1]
dns_search: [example.org]
domainname: example.org
entrypoint: ["env", "-i"]
extra_hosts: {weights.example.org: 127.0.0.2}
group_add: [video]
hostname: somewhere
init: true
ipc_mode: private
mem_reservation: 512m
oom_score_adj: 100
pid_mode: host
pids_limit: 1000
privileged: false
read_only: true
runtime: runc
security_opt: [no-new-privileges]
stop_signal: SIGINT
sysctls: {net.ipv4.ip_unprivileged_port_start: "0"}
tmpfs: {/scratch: "size=64m,mode=1777"}
tty: true
ulimits: [{name: nofile, soft: 1024, hard: 4096}, {name: stack, soft: 1048576, hard: 1048576}]
uts_mode: ""
working_dir: /tmp
"""


def _spec(options: ContainerOptions, folder: Path) -> ContainerSpec:
    return ContainerSpec(
        name="tritontune-faithful",
        image=IMAGE,
        arguments=("tritonserver", "--id=a b"),
        binds=(Bind(folder, folder, writable=True),),
        labels={},
        identity=our_identity([], raise_limits=True, user=options.user),
        options=options,
    )


@contextmanager
def _removed(engine: docker.DockerClient, name: str) -> Iterator[Mapping[str, Any]]:
    container = engine.containers.get(name)
    try:
        yield container.attrs
    finally:
        container.remove(force=True)


def _as_it_is(engine: docker.DockerClient, spec: ContainerSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the engine says of the container that docker-py makes, and of the one that the command makes."""
    spec.create(engine)
    with _removed(engine, spec.name) as ours:
        pass
    program, verb, rm, *rest = shlex.split(str(spec))
    assert (program, verb, rm) == ("docker", "run", "--rm")
    subprocess.run(["docker", "create", *rest], check=True, capture_output=True, timeout=30)
    with _removed(engine, spec.name) as repeated:
        pass
    return _telling(ours), _telling(repeated)


def _telling(attributes: Mapping[str, Any]) -> dict[str, Any]:
    told = {**attributes["Config"], **attributes["HostConfig"]}
    told["Env"] = sorted(told["Env"])
    told["Hostname"] = None if attributes["Id"].startswith(told["Hostname"]) else told["Hostname"]
    told["Command"] = [*(told.pop("Entrypoint") or ()), *told.pop("Cmd")]
    for name in ("CapAdd", "CapDrop"):
        told[name] = sorted(capability.removeprefix("CAP_") for capability in told[name] or ())
    for bindings in (told["PortBindings"] or {}).values():
        bindings[0]["HostPort"] = bindings[0]["HostPort"] or "0"
    for request in told["DeviceRequests"] or ():
        request["DeviceIDs"] = request["DeviceIDs"] or []
    # An empty list, an empty text and none at all are the same to the engine.
    return {name: value or None for name, value in told.items() if name not in _OF_THE_CLIENT}


@pytest.mark.docker
@with_the_command
def test_with_nothing_asked(engine: docker.DockerClient, tmp_path: Path) -> None:
    ours, repeated = _as_it_is(engine, _spec(ContainerOptions(), tmp_path))
    assert ours == repeated


@pytest.mark.docker
@with_the_command
def test_with_every_option(engine: docker.DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "a secret")
    volume = engine.volumes.create()
    options = ContainerOptions(
        gpus="0,GPU-12ab",
        shm_bytes=64 << 20,
        memory_bytes=512 << 20,
        mounts=(parse_mount(f"{tmp_path}:/weights:ro"), parse_mount(f"{volume.name}:/cache")),
        environment={"TOKEN": None, "OMP_PLACES": "{0}, {1}"},
        network="bridge",
        user="1000:1000",
    )
    spec = _spec(options, tmp_path)
    try:
        ours, repeated = _as_it_is(engine, spec)
    finally:
        volume.remove()
    assert ours == repeated
    assert {"TOKEN=a secret", "OMP_PLACES={0}, {1}"} <= set(ours["Env"])
    assert "a secret" not in str(spec)
    assert ours["DeviceRequests"][0]["DeviceIDs"] == ["0", "GPU-12ab"]
    assert [mount["Source"] for mount in ours["Mounts"]] == [str(tmp_path), str(tmp_path), volume.name]


@pytest.mark.docker
@with_the_command
@pytest.mark.parametrize("gpus", ["all", "none"])
def test_gpus_in_words(gpus: str, engine: docker.DockerClient, tmp_path: Path) -> None:
    ours, repeated = _as_it_is(engine, _spec(ContainerOptions(gpus=gpus), tmp_path))
    assert ours == repeated
    assert bool(ours["DeviceRequests"]) == (gpus == "all")
    # Where NVIDIA's runtime is the default one, the image alone asks for all.
    assert ("NVIDIA_VISIBLE_DEVICES=void" in ours["Env"]) == (gpus == "none")


@pytest.mark.docker
@with_the_command
def test_on_the_machines_own_network(engine: docker.DockerClient, tmp_path: Path) -> None:
    ours, repeated = _as_it_is(engine, _spec(ContainerOptions(network="host"), tmp_path))
    assert ours == repeated
    assert (ours["NetworkMode"], ours["PortBindings"]) == ("host", None)


@pytest.mark.docker
@with_the_command
def test_with_everything_that_is_passed_through(engine: docker.DockerClient, tmp_path: Path) -> None:
    more = parse_docker_args(yaml.safe_load(EVERYTHING))
    ours, repeated = _as_it_is(engine, _spec(ContainerOptions(more=more), tmp_path))
    assert ours == repeated
    assert ours["Command"] == ["env", "-i", "tritonserver", "--id=a b"]
    assert {limit["Name"]: limit["Hard"] for limit in ours["Ulimits"]} == {
        "memlock": -1,
        "nofile": 4096,
        "stack": 1 << 20,
    }


def test_every_keyword_that_docker_py_knows_is_passed_through_or_said_otherwise() -> None:
    known = {*docker_py.RUN_CREATE_KWARGS, *docker_py.RUN_HOST_CONFIG_KWARGS}
    # These it takes apart by hand.
    known |= {"ports", "volumes", "network", "networking_config"}
    assert _FLAGS.keys() | _ELSEWHERE.keys() == known
    assert not _FLAGS.keys() & _ELSEWHERE.keys()


class TestParsing:
    def test_values_are_yaml(self) -> None:
        read = parse_docker_args(["cpuset-cpus=0-3", "cap_add=[SYS_PTRACE]", "init=true", "nano_cpus=1500000000"])
        assert read == {"cpuset_cpus": "0-3", "cap_add": ["SYS_PTRACE"], "init": True, "nano_cpus": 1_500_000_000}

    def test_reads_what_a_job_file_says(self) -> None:
        assert parse_docker_args({"init": True, "devices": ["/dev/x"]}) == {"init": True, "devices": ["/dev/x"]}

    @pytest.mark.parametrize(
        ("texts", "complaint"),
        [
            (
                ["cpus=2"],
                "'cpus' is an option of `docker run`; use docker-py's keyword 'nano_cpus'",
            ),
            (["device=/dev/x"], "use docker-py's keyword 'devices'"),
            (["volume=/a:/b"], "volume: use --mount"),
            (["memory=4g"], "memory: use --memory"),
            (["rm=true"], "rm: tritontune removes its containers"),
            (["cpuset_cpu=0"], "is not a keyword of docker-py's containers.create; did you mean 'cpuset_cpus'?"),
            (["shm_size=1g"], "shm_size: use --shm-size"),
            (["network-mode=host"], "network_mode: use --network"),
            (["volumes={}"], "volumes: use --mount"),
            (["command=sh"], "command: the command is tritonserver; add arguments with --triton-arg"),
            (["init"], "'init' is not an argument; write it as NAME=VALUE"),
            (["dns=[1"], "dns: '[1' is not YAML"),
            (["init=true", "init=false"], "init is given twice"),
        ],
    )
    def test_names_what_is_wrong_and_what_would_be_right(self, texts: list[str], complaint: str) -> None:
        with pytest.raises(ValueError, match=re.escape(complaint)):
            parse_docker_args(texts)


def test_cores_are_written_as_docker_run_counts_them() -> None:
    assert list(docker_run_options({"nano_cpus": 1_500_000_000})) == ["--cpus=1.5"]
