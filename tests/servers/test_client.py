from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.launcher_contract import infer
from support.repositories import ModelRepositoryFactory, config_text

from tuner.errors import Cause, ServerDiedError, ServerError, ServerHungError
from tuner.servers.client import TritonClient
from tuner.servers.process import ProcessLauncher
from tuner.servers.protocols import Launch, Server


@pytest.fixture(scope="module")
def server(triton_launcher: ProcessLauncher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("client")
    repository = ModelRepositoryFactory(folder / "model_repository")
    repository.add("identity", config=config_text(max_batch_size=4))
    repository.add("slow")
    with triton_launcher.launch(Launch(repository.path, "identity", folder / "log", 30)) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[TritonClient]:
    with TritonClient(server.grpc_address) as client:
        yield client


@pytest.mark.triton
class TestWithAServer:
    def test_server(self, client: TritonClient) -> None:
        info = client.server()
        assert info.version.count(".") == 2
        assert "statistics" in info.extensions

    def test_models(self, client: TritonClient) -> None:
        assert client.models() == {"identity": "READY", "slow": ""}

    def test_readiness(self, client: TritonClient) -> None:
        assert client.is_model_ready("identity")
        assert not client.is_model_ready("slow")
        assert not client.is_model_ready("unheard-of")

    def test_effective_config(self, client: TritonClient) -> None:
        config = client.model_config("identity")
        assert (config.name, config.backend, config.max_batch_size) == ("identity", "python", 4)
        assert config.instance_group[0].name == "identity_0"  # filled in by the server

    def test_statistics(self, client: TritonClient, server: Server) -> None:
        infer(server, "identity", items=3)
        deadline = time.monotonic() + 5
        while (statistics := client.statistics("identity")).inference_count < 3:  # it answers before it counts
            assert time.monotonic() < deadline
            time.sleep(0.001)
        assert (statistics.inference_count, statistics.execution_count) == (3, 1)
        assert [batch.batch_size for batch in statistics.batch_stats] == [3]

    @pytest.mark.parametrize("ask", [TritonClient.model_config, TritonClient.statistics])
    def test_unknown_model_is_the_servers_own_error(self, client: TritonClient, ask: object) -> None:
        assert callable(ask)
        with pytest.raises(ServerError, match="unheard-of") as caught:
            ask(client, "unheard-of")
        assert type(caught.value) is ServerError
        assert caught.value.cause is Cause.REQUESTS_FAILED


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with TritonClient(address) as client, pytest.raises(ServerDiedError, match=f"no Triton answers at {address}"):
        client.server()


def test_no_answer_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with TritonClient(address, timeout_s=0.2) as client, pytest.raises(ServerHungError, match="no answer in 0.2 s"):
            client.is_model_ready("identity")


@pytest.mark.triton
def test_a_server_that_died(
    triton_launcher: ProcessLauncher, model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    request = Launch(model_repository.path, model_repository.add("identity"), tmp_path / "log", 30)
    with triton_launcher.launch(request) as server, TritonClient(server.grpc_address) as client:
        assert client.is_model_ready("identity")
        server.stop()
        with pytest.raises(ServerDiedError):
            client.is_model_ready("identity")


def test_closing_twice_is_harmless() -> None:
    client = TritonClient("127.0.0.1:1")
    client.close()
    client.close()
