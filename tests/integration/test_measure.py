"""`tritontune measure`, on a server of its own and on one that runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command_line import servers_of, tritontune
from support.repositories import ModelRepositoryFactory, config_text

from tuner.models.repository import ModelRepository
from tuner.models.staging import stage
from tuner.servers.process import ProcessLauncher
from tuner.servers.protocols import Launch, Server

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def server(triton_launcher: ProcessLauncher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Triton that serves the model `slow`."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "models").mkdir()
    ModelRepositoryFactory(folder / "models").add("slow", config=config_text(max_batch_size=16))
    staged = stage(ModelRepository.open(folder / "models"), folder / "staged")
    with triton_launcher.launch(Launch(staged.path, "slow", folder / "log", 60.0)) as running:
        yield running


def test_a_repository(slow_model: Path) -> None:
    done = tritontune("measure", slow_model, "--concurrency", "1,4", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["schema"], told["model"]) == (1, "slow")
    one, four = told["points"]
    assert (one["load"], four["load"]) == ({"concurrency": 1}, {"concurrency": 4})
    # One instance of 10 ms, no batching: no load gets more than 100 a second, and more requests only wait longer.
    assert 10 < one["throughput"]["value"] < 101
    assert 10 < four["throughput"]["value"] < 101
    assert four["latency_ms"]["p50"]["value"] > one["latency_ms"]["p50"]["value"]
    assert one["errors"] == 0
    assert one["average_batch_size"] == 1.0
    assert set(one) == {"load", "throughput", "latency_ms", "average_batch_size", "requests", "errors", "verified"}
    assert servers_of(slow_model) == []


def test_a_server_that_runs(server: Server) -> None:
    done = tritontune("measure", "--url", server.grpc_address, "--concurrency", "2")
    assert done.returncode == 0, done.stderr
    assert "inferences/s" in done.stdout
    assert "queue" in done.stdout
    assert "at concurrency 2" in done.stderr
    server.check()


def test_a_proxy_of_the_environment_is_not_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    done = tritontune("measure", "--url", server.grpc_address)
    assert done.returncode == 0, done.stderr


def test_a_model_that_the_server_does_not_have(server: Server) -> None:
    done = tritontune("measure", "--url", server.grpc_address, "--model", "slwo")
    assert done.returncode == 2
    assert f"{server.grpc_address} serves no 'slwo'; did you mean 'slow'?" in done.stderr


def test_nobody_at_the_url() -> None:
    done = tritontune("measure", "--url", "127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr == "tritontune: no Triton answers at 127.0.0.1:1\n"


def test_several_models_and_none_named(model_repository: ModelRepositoryFactory) -> None:
    model_repository.add("slow", name="a")
    model_repository.add("slow", name="b")
    done = tritontune("measure", model_repository.path)
    assert done.returncode == 2
    assert "holds a, b; choose one with --model" in done.stderr


def test_a_model_that_fails_every_request(model_repository: ModelRepositoryFactory) -> None:
    model_repository.add("fails_requests")
    done = tritontune("measure", model_repository.path)
    assert done.returncode == 1
    assert "not this one" in done.stderr.splitlines()[-1]


def test_failed_requests_are_counted(model_repository: ModelRepositoryFactory) -> None:
    model_repository.add("fails_requests", config=config_text(fail_every=10))
    done = tritontune("measure", model_repository.path, "--json")
    assert done.returncode == 0, done.stderr
    (point,) = json.loads(done.stdout)["points"]
    assert point["errors"] / (point["errors"] + point["requests"]) == pytest.approx(0.1, abs=0.03)


def test_a_variable_dimension(model_repository: ModelRepositoryFactory) -> None:
    model_repository.add("identity", config=config_text().replace("dims: [ 4 ]", "dims: [ -1 ]"))
    assert "--shape IN:" in tritontune("measure", model_repository.path).stderr
    done = tritontune("measure", model_repository.path, "--shape", "IN:7")
    assert done.returncode == 0, done.stderr
