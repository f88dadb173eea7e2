"""Servers of an engine that is taken for one on another machine: what is known of them is what the engine says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path

import docker
import pytest
import tritonclient.grpc as triton
from support.docker_image import IMAGE, container_of
from support.engine_cable import Cable

from tuner.core.errors import Cause
from tuner.servers.docker import engine_location as docker_location
from tuner.servers.docker.container_options import ContainerOptions
from tuner.servers.docker.launcher import DockerLauncher
from tuner.servers.docker.server import DockerServer
from tuner.servers.protocols import Launch, Server
from tuner.testing.launcher_contract import await_death, infer
from tuner.testing.repositories import ModelRepositoryFactory, config_text

pytestmark = pytest.mark.docker

MIB = 1 << 20


@pytest.fixture
def launch(
    engine: docker.DockerClient,
    model_repository: ModelRepositoryFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., Server]]:
    """Starts a model on an engine that is reached over TCP, as if at an address of another machine's."""
    bridge = engine.networks.get("bridge").attrs["IPAM"]["Config"][0]
    # An engine that has just made its bridge does not tell the gateway, which is the first address.
    gateway = bridge.get("Gateway") or str(ip_network(bridge["Subnet"])[1])
    monkeypatch.setattr(docker_location, "_host", lambda _: gateway)

    def start(source: str, config: str | None = None, *, memory_bytes: int | None = None, code: str = "") -> Server:
        model = model_repository.add(source, config=config)
        with (model_repository.path / model / "1" / "model.py").open("a", encoding="utf-8") as file:
            file.write(code)
        launchers.append(DockerLauncher(IMAGE, ContainerOptions(memory_bytes=memory_bytes), always_copy=True))
        server = launchers[0].launch(Launch(model_repository.path, model, tmp_path / "server.log", 60))
        assert isinstance(server, DockerServer)
        assert server.pid == 0
        assert server.endpoint.address.startswith(f"{gateway}:")
        assert not server.endpoint.address.endswith(":8001")
        return server

    launchers: list[DockerLauncher] = []
    with Cable.over_tcp() as host:
        monkeypatch.setenv("DOCKER_HOST", host)
        yield start
        for launcher in launchers:
            launcher.close()


def test_a_killed_server(launch: Callable[..., Server], engine: docker.DockerClient) -> None:
    with launch("identity") as server:
        assert infer(server, "identity").size
        container_of(server, engine).kill()
        death = await_death(server)
    assert str(death) == "Triton was ended by SIGKILL"
    assert death.cause is Cause.CRASHED


def test_an_instance_that_ends(launch: Callable[..., Server], engine: docker.DockerClient) -> None:
    with launch("crashes", config_text(instances=2, crash_when_batch_exceeds=3)) as server:
        with pytest.raises(triton.InferenceServerException, match="not healthy"):
            infer(server, "crashes", items=4)
        assert str(await_death(server)) == "an instance of model 'crashes' has ended"
        assert container_of(server, engine).status == "running"


def test_a_model_that_finalizes(launch: Callable[..., Server], tmp_path: Path) -> None:
    launch("finalizes").stop()
    assert "goodbye from finalizes_0_0\n" in (tmp_path / "server.log").read_text()


def test_a_server_that_outgrows_its_memory(launch: Callable[..., Server]) -> None:
    code = "\n    def execute(self, requests):\n        hoard = b'x' * (1 << 30)\n"
    with launch("identity", memory_bytes=512 * MIB, code=code) as server:
        with pytest.raises(triton.InferenceServerException):
            infer(server, "identity")
        death = await_death(server)
    assert str(death) == "an instance of model 'identity' has ended (out of memory)"
    assert death.cause is Cause.OUT_OF_MEMORY
