from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from support.tritons import start_with_http
from tritonclient.grpc import model_config_pb2

from tuner.config.patch import Patch
from tuner.core.errors import Cause, JobError, LaunchError, TuningError
from tuner.core.machine import Machine
from tuner.core.mark import Mark
from tuner.options.endpoint import Endpoint, Protocol
from tuner.servers import process, remote
from tuner.servers.arguments import triton_arguments
from tuner.servers.client import TritonClient
from tuner.servers.installation import TritonInstallation
from tuner.servers.own_configs import OwnConfigs
from tuner.servers.ports import free_port
from tuner.servers.process import ProcessLauncher
from tuner.servers.protocols import Launch
from tuner.servers.remote import RemoteLauncher
from tuner.testing.launcher_contract import CandidateContract, Traces, await_death, infer
from tuner.testing.repositories import ModelRepositoryFactory, config_text

BOTH = pytest.mark.parametrize(
    "elsewhere", ["fake_triton", pytest.param("triton_installation", marks=pytest.mark.triton)], indirect=True
)
RESIDENT = "resident"


@dataclass
class Elsewhere:
    """A Triton that somebody else runs, with one model loaded, and whoever starts it anew.

    Attributes:
        repository: Of the server.
    """

    installation: TritonInstallation
    repository: ModelRepositoryFactory
    grpc: Endpoint
    http: Endpoint
    metrics: str


@pytest.fixture(scope="module", params=["fake_triton"])
def elsewhere(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    installation: TritonInstallation = request.getfixturevalue(request.param)
    folder = tmp_path_factory.mktemp("elsewhere")
    repository = ModelRepositoryFactory(folder / "model_repository")
    # It needs completing, so that the server does so with others, too.
    repository.add("identity", name=RESIDENT, config=config_text().replace('backend: "python"', ""))
    metrics = f"127.0.0.1:{free_port()}"
    options = ("--allow-metrics=true", f"--metrics-port={metrics.rpartition(':')[2]}", "--metrics-address=127.0.0.1")
    ports = start_with_http(installation, Launch(repository.path, RESIDENT, folder / "log", 30), *options)
    with ports.server:
        yield Elsewhere(installation, repository, ports.grpc, ports.http, f"http://{metrics}/metrics")


@pytest.fixture
def model_repository(elsewhere: Elsewhere) -> ModelRepositoryFactory:
    """The server's own, with nothing but the resident model in it."""
    for folder in elsewhere.repository.path.iterdir():
        if folder.name != RESIDENT:
            shutil.rmtree(folder)
    return elsewhere.repository


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def launcher(elsewhere: Elsewhere, notes: list[str]) -> Iterator[RemoteLauncher]:
    launcher = RemoteLauncher(elsewhere.grpc, None, notes.append)
    yield launcher
    launcher.close()


@pytest.fixture
def request_for(model_repository: ModelRepositoryFactory, tmp_path: Path) -> Callable[..., Launch]:
    """A candidate for a model that is in the server's repository with another config."""

    def make(source: str, *, deadline_s: float = 60, config: str | None = None) -> Launch:
        model = model_repository.add(source, config="" if config == "" else None)
        staged = tmp_path / "staged" / model
        staged.mkdir(parents=True)
        if config != "":
            (staged / "config.pbtxt").write_text(config or config_text(), encoding="utf-8")
        return Launch(staged.parent, model, tmp_path / "server.log", deadline_s)

    return make


@BOTH
class TestRemoteLauncher(CandidateContract):
    tells_last_words = False
    gpus = None

    @pytest.fixture
    def request_for(self, request_for: Callable[..., Launch]) -> Callable[..., Launch]:
        return request_for

    @pytest.fixture
    def traces(self) -> Traces:
        return lambda _: set()


def loaded(endpoint: Endpoint, model: str) -> model_config_pb2.ModelConfig | None:
    with TritonClient(endpoint) as client:
        return client.model_config(model) if client.is_model_ready(model) else None


def candidate_of(folder: Path, model: str, config: str) -> Launch:
    """A staged repository in a folder, with nothing but a model's config."""
    (folder / model).mkdir()
    (folder / model / "config.pbtxt").write_text(config)
    return Launch(folder, model, folder / "log", 30)


@BOTH
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_model_is_given_its_own_config_back(
    elsewhere: Elsewhere, tmp_path: Path, notes: list[str], protocol: Protocol
) -> None:
    before = loaded(elsewhere.grpc, RESIDENT)
    assert before
    launch = candidate_of(tmp_path, RESIDENT, config_text(instances=3, max_batch_size=64))
    launcher = RemoteLauncher(elsewhere.http if protocol == "http" else elsewhere.grpc, None, notes.append)
    with launcher.launch(launch) as server:
        candidate = loaded(elsewhere.grpc, RESIDENT)
        assert candidate
        assert (candidate.instance_group[0].count, candidate.max_batch_size) == (3, 64)
        server.check()
    launcher.close()
    assert loaded(elsewhere.grpc, RESIDENT) == before
    assert not notes


@BOTH
def test_so_is_one_that_was_loaded_with_an_override(
    elsewhere: Elsewhere, launcher: RemoteLauncher, tmp_path: Path
) -> None:
    override = {"backend": "python", "max_batch_size": 2, "instance_group": [{"kind": "KIND_CPU", "count": 2}]}
    tensor = {"data_type": "TYPE_FP32", "dims": [4]}
    override |= {"input": [{"name": "IN", **tensor}], "output": [{"name": "OUT", **tensor}]}
    with TritonClient(elsewhere.grpc, timeout_s=30) as client:
        client.load_model(RESIDENT, json.dumps(override))
        before = client.model_config(RESIDENT)
        try:
            candidate = candidate_of(tmp_path, RESIDENT, config_text(max_batch_size=64))
            launcher.launch(candidate).stop()
            assert client.model_config(RESIDENT).max_batch_size == 64
            launcher.close()
            assert client.model_config(RESIDENT) == before
            assert before.max_batch_size == 2
        finally:
            client.load_model(RESIDENT)


def test_a_load_afterwards_takes_what_the_file_says(
    launcher: RemoteLauncher, model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    model = model_repository.add("identity")
    with TritonClient(launcher._endpoint, timeout_s=30) as client:
        client.load_model(model)
        candidate = candidate_of(tmp_path, model, config_text(max_batch_size=64))
        launcher.launch(candidate).stop()
        launcher.close()
        (model_repository.path / model / "config.pbtxt").write_text(config_text(max_batch_size=16))
        client.load_model(model)
        assert client.model_config(model).max_batch_size == 16
        client.unload_model(model)


def test_after_a_kill_the_next_launcher_gives_it_back(elsewhere: Elsewhere, tmp_path: Path, notes: list[str]) -> None:
    before = loaded(elsewhere.grpc, RESIDENT)
    candidate = candidate_of(tmp_path, RESIDENT, config_text(instances=3, max_batch_size=64))
    own = OwnConfigs(tmp_path / "own.json", elsewhere.grpc.address)
    # It is never closed.
    RemoteLauncher(elsewhere.grpc, None, notes.append, own).launch(candidate)
    assert loaded(elsewhere.grpc, RESIDENT) != before
    assert not OwnConfigs(tmp_path / "own.json", "elsewhere:8001").kept()
    RemoteLauncher(elsewhere.grpc, None, notes.append, own).close()
    assert loaded(elsewhere.grpc, RESIDENT) == before
    assert not own.kept()
    assert not notes


def test_one_that_was_not_loaded_is_unloaded(
    elsewhere: Elsewhere, launcher: RemoteLauncher, request_for: Callable[..., Launch]
) -> None:
    with launcher.launch(request_for("identity")) as server:
        assert infer(server, "identity").size
    assert loaded(elsewhere.grpc, "identity")
    launcher.close()
    assert not loaded(elsewhere.grpc, "identity")
    assert loaded(elsewhere.grpc, RESIDENT)


def test_one_that_takes_its_own_config_no_more_is_told_of(
    launcher: RemoteLauncher, model_repository: ModelRepositoryFactory, notes: list[str], tmp_path: Path
) -> None:
    model = model_repository.add("identity")
    with TritonClient(launcher._endpoint, timeout_s=30) as client:
        client.load_model(model)
    candidate = candidate_of(tmp_path, model, config_text(max_batch_size=64))
    launcher.launch(candidate).stop()
    (model_repository.path / model / "config.pbtxt").write_text("nonsense")
    shutil.rmtree(model_repository.path / model / "1")
    launcher.close()
    (note,) = notes
    assert note.startswith(f"{model} at {launcher._endpoint.address} may still have a candidate's config: ")
    assert note.endswith("; unload and reload it there")


def test_it_serves_one_candidate_at_a_time(launcher: RemoteLauncher, request_for: Callable[..., Launch]) -> None:
    request = request_for("identity")
    with launcher.launch(request), pytest.raises(TuningError, match="one candidate at a time"):
        launcher.launch(request)


def test_a_server_that_is_gone(
    fake_launcher: ProcessLauncher, tmp_path: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_COMES_BACK_S", 1.0)
    monkeypatch.setattr(remote, "_CHECK_EVERY_S", 0.1)
    repository = ModelRepositoryFactory(tmp_path / "repository")
    request = Launch(repository.path, repository.add("identity"), tmp_path / "log", 30)
    with fake_launcher.launch(request) as started:
        launcher = RemoteLauncher(started.endpoint, None, notes.append)
        with launcher.launch(request) as server:
            started.stop()
            assert await_death(server).cause is Cause.CRASHED
        with pytest.raises(TuningError, match=r"no Triton answers at .*; it did not come back within 1 s"):
            launcher.launch(request)
    launcher.close()
    assert notes[0].startswith(f"identity at {started.endpoint.address} may still have a candidate's config")


def test_a_model_that_its_repository_has_not(launcher: RemoteLauncher, tmp_path: Path) -> None:
    (tmp_path / "absent").mkdir()
    with pytest.raises(LaunchError, match="'absent' does not load: the repository of .* has no such model") as caught:
        launcher.launch(Launch(tmp_path, "absent", tmp_path / "log", 30))
    assert caught.value.cause is Cause.INVALID_CONFIG


def all_at_once(request: Launch, *, mark: Mark, repository: Path, grpc_port: int) -> tuple[str, ...]:
    """How Triton is started by default."""
    arguments = triton_arguments(request, mark=mark, repository=repository, grpc_port=grpc_port)
    explicit = ("--model-control-mode=", "--load-model=")
    return tuple(argument for argument in arguments if not argument.startswith(explicit))


@BOTH
def test_only_a_server_that_can_be_told_what_to_load_is_tuned(
    elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RemoteLauncher(elsewhere.grpc, None, print).look()
    RemoteLauncher(elsewhere.http, None, print).look()
    repository = ModelRepositoryFactory(tmp_path / "repository")
    request = Launch(repository.path, repository.add("identity"), tmp_path / "log", 30)
    monkeypatch.setattr(process, "triton_arguments", all_at_once)
    with (
        ProcessLauncher(elsewhere.installation).launch(request) as server,
        pytest.raises(JobError, match="is not in explicit model control; start it with"),
    ):
        RemoteLauncher(server.endpoint, None, print).look()
    with pytest.raises(JobError, match="--url: no Triton answers at"):
        RemoteLauncher(server.endpoint, None, print).look()


def test_it_says_which_triton_it_is(launcher: RemoteLauncher, elsewhere: Elsewhere) -> None:
    assert launcher.description == f"Triton 2.51.0 at {elsewhere.grpc.url}"
    assert launcher.remove_leftovers() == ()
    # It tells of its GPUs, and it has none.
    assert RemoteLauncher(elsewhere.grpc, elsewhere.metrics, print).machine == Machine(None, (), "")


def test_a_candidate_that_changes_another_model_loads_and_restores_both(
    elsewhere: Elsewhere, launcher: RemoteLauncher, model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    for model in ("identity", "slow"):
        model_repository.add(model)
    candidate = candidate_of(tmp_path, "identity", config_text(max_batch_size=64))
    other = candidate_of(tmp_path, "slow", config_text(max_batch_size=16))
    patch = Patch(config=candidate.config, files={"slow/config.pbtxt": other.config})
    with launcher.launch(replace(candidate, also=("slow",), patch=patch)) as server:
        assert infer(server, "identity").size
        sizes = [config.max_batch_size for name in ("identity", "slow") if (config := loaded(elsewhere.grpc, name))]
        assert sizes == [64, 16]
    launcher.close()
    assert not loaded(elsewhere.grpc, "identity")
    assert not loaded(elsewhere.grpc, "slow")
