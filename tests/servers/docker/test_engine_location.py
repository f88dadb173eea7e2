from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tuner.core.errors import TuningError
from tuner.servers.docker import engine_location as docker_location
from tuner.servers.docker.engine_location import EngineLocation, engine_address
from tuner.servers.docker.server import address_of

ELSEWHERE = "192.0.2.77"
CONTAINER = "c" * 64


def attributes(**networks: str) -> dict[str, object]:
    """Of a container that publishes its port 8001 as 32768, by its address on each network."""
    settings = {
        "Networks": {name: {"IPAddress": ip, "Gateway": "127.0.0.1"} for name, ip in networks.items()},
        "Ports": {"8001/tcp": [{"HostIp": "", "HostPort": "32768"}]},
    }
    return {"NetworkSettings": settings}


@pytest.mark.parametrize(
    ("docker_host", "address"),
    [
        ("", None),
        ("unix:///var/run/docker.sock", None),
        ("tcp://box:2376", ("box", 2376)),
        ("tcp://box", ("box", 2375)),
        ("ssh://someone@box", ("box", 22)),
    ],
)
def test_where_an_engine_listens(docker_host: str, address: tuple[str, int] | None) -> None:
    assert engine_address(docker_host) == address


@pytest.mark.parametrize(
    ("docker_host", "host"),
    [("unix:///var/run/docker.sock", None), ("tcp://127.0.0.1:2375", None), (f"tcp://{ELSEWHERE}:1", ELSEWHERE)],
)
def test_which_machine_an_engine_is_on(docker_host: str, host: str | None) -> None:
    assert docker_location._host(docker_host) == host


def test_a_machine_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(TuningError, match="DOCKER_HOST: cannot resolve host 'box': Name or service not known"):
        docker_location._host("tcp://box:2375")


def test_the_container_that_we_are_in(monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = (
        "700 680 8:1 / /data rw - ext4 /dev/sda rw\n"
        f"701 680 8:1 /var/lib/docker/containers/{CONTAINER}/resolv.conf /etc/resolv.conf rw - ext4 /dev/sda rw\n"
        f"702 680 8:1 /var/lib/docker/containers/{CONTAINER}/hosts /etc/hosts rw - ext4 /dev/sda rw\n"
    )
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: mounts)
    assert docker_location._containers_around() == [CONTAINER]


def test_a_network_of_ours_is_the_shortest_way() -> None:
    location = EngineLocation(container=CONTAINER, networks=("tuners",))
    assert location.network == "tuners"
    assert address_of(attributes(bridge=ELSEWHERE, tuners="192.0.2.2"), 8001, location) == "192.0.2.2:8001"


def test_the_default_network_needs_no_name() -> None:
    assert EngineLocation(container=CONTAINER, networks=("bridge",)).network is None


def test_another_machine_is_reached_by_its_own_address_alone() -> None:
    location = EngineLocation(ELSEWHERE)
    assert location.publish_on == ELSEWHERE
    # Its networks may well have the addresses of ours: this one would be reached from its gateway.
    assert address_of(attributes(bridge="127.0.0.1"), 8001, location) == f"{ELSEWHERE}:32768"
    assert address_of(attributes(bridge="127.0.0.1"), 8001, EngineLocation()) == "127.0.0.1:8001"


def test_a_tuner_beside_the_server_has_its_kernel_wherever_the_engine_listens() -> None:
    location = EngineLocation(ELSEWHERE, CONTAINER, ("tuners",))
    assert not location.is_distant
    assert location.publish_on == "127.0.0.1"


def test_a_tuner_on_the_network_of_another_container_reaches_the_servers_own_address() -> None:
    assert address_of(attributes(bridge=ELSEWHERE), 8001, EngineLocation(container=CONTAINER)) == f"{ELSEWHERE}:8001"
