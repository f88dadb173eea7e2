from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from tritonclient.grpc import model_config_pb2

from tuner.config.patch import Patch
from tuner.core.errors import Cause, LaunchError, ServerDiedError, ServerHungError
from tuner.servers.client import TritonClient
from tuner.servers.process import ProcessLauncher
from tuner.servers.processes import marked_processes
from tuner.servers.protocols import Launch, Server
from tuner.servers.reload import ReloadLauncher
from tuner.testing.launcher_contract import CandidateContract, Traces, await_death, infer
from tuner.testing.repositories import ModelRepositoryFactory, config_text

BOTH = pytest.mark.parametrize(
    "below", ["fake_launcher", pytest.param("triton_launcher", marks=pytest.mark.triton)], indirect=True
)

Request = Callable[..., Launch]


@pytest.fixture
def ours() -> Callable[[], set[int]]:
    """The processes of our servers, but for those that other tests share."""

    def find() -> set[int]:
        return {process.pid for mark, process in marked_processes() if mark.pid == os.getpid()}

    others = find()
    return lambda: find() - others


@pytest.fixture(params=["fake_launcher"])
def below(request: pytest.FixtureRequest) -> ProcessLauncher:
    """What starts the server."""
    launcher: ProcessLauncher = request.getfixturevalue(request.param)
    return launcher


@pytest.fixture
def launcher(below: ProcessLauncher, ours: Callable[[], set[int]]) -> Iterator[ReloadLauncher]:
    launcher = ReloadLauncher(below)
    yield launcher
    launcher.close()
    assert not ours()


@pytest.fixture
def request_for(model_repository: ModelRepositoryFactory, tmp_path: Path) -> Request:
    """One candidate after the other for the same model, each with a log of its own."""
    logs = (tmp_path / f"{number}.log" for number in range(100))

    def make(source: str = "identity", *, deadline_s: float = 60, config: str = "", **parameters: object) -> Launch:
        if not (model_repository.path / source).exists():
            model_repository.add(source)
        text = config or config_text(**parameters)  # type: ignore[arg-type]
        (model_repository.path / source / "config.pbtxt").write_text(text, encoding="utf-8")
        return Launch(model_repository.path, source, next(logs), deadline_s)

    return make


class TestContract(CandidateContract):
    @pytest.fixture
    def traces(self) -> Traces:
        return lambda _: set()  # of a candidate; the server stays


def config_of(server: Server, model: str = "identity") -> model_config_pb2.ModelConfig:
    with TritonClient(server.endpoint) as client:
        return client.model_config(model)


@BOTH
def test_one_server_serves_candidate_after_candidate(launcher: ReloadLauncher, request_for: Request) -> None:
    requests = [request_for(instances=1)]
    with launcher.launch(requests[0]) as server:
        address = server.endpoint.address
    for count in (2, 3):
        requests.append(request_for(instances=count))
        with launcher.launch(requests[-1]) as server:
            assert server.endpoint.address == address
            assert config_of(server).instance_group[0].count == count
            assert infer(server, "identity").size
            server.check()
        with pytest.raises(ServerDiedError, match="was stopped"):
            server.check()
        # Each log has what was written for this candidate.
        assert requests[-1].log.read_text().count("successfully loaded 'identity'") == 1
        assert "# then load 'identity'" in server.command


@BOTH
def test_a_candidate_that_is_refused_leaves_the_server_to_the_next(
    launcher: ReloadLauncher, request_for: Request
) -> None:
    with launcher.launch(request_for()) as server:
        address = server.endpoint.address
    with pytest.raises(LaunchError, match="preferred size must be <= max batch size") as caught:
        launcher.launch(request_for(more="dynamic_batching { preferred_batch_size: [ 16 ] }"))
    assert caught.value.cause is Cause.INVALID_CONFIG
    assert "preferred size" in caught.value.last_words
    with pytest.raises(LaunchError, match=r'config.pbtxt:\d+:1: .*no field named "max_bach_size"') as caught:
        launcher.launch(request_for(more="max_bach_size: 4"))
    assert caught.value.cause is Cause.INVALID_CONFIG
    with launcher.launch(request_for(max_batch_size=4)) as server:
        assert server.endpoint.address == address
        assert config_of(server).max_batch_size == 4


def test_after_a_failure_of_another_kind_the_server_is_another(launcher: ReloadLauncher, request_for: Request) -> None:
    parameters = {"out_of_memory_when_instances": 2}
    with launcher.launch(request_for("refuses", **parameters)) as server:
        address = server.endpoint.address
    with pytest.raises(LaunchError, match="MemoryError: no room for another instance") as caught:
        launcher.launch(request_for("refuses", instances=2, **parameters))
    assert caught.value.cause is Cause.OUT_OF_MEMORY
    with launcher.launch(request_for("refuses", **parameters)) as server:
        assert server.endpoint.address != address


def test_so_it_is_after_one_that_failed_while_it_was_measured(
    launcher: ReloadLauncher, request_for: Request, ours: Callable[[], set[int]]
) -> None:
    with suppress(ServerHungError), launcher.launch(request_for()) as server:
        raise ServerHungError("no answer", cause=Cause.HUNG)
    assert not ours()
    with launcher.launch(request_for()) as another:
        assert another.endpoint.address != server.endpoint.address


def test_a_server_that_dies_is_noticed_and_replaced(
    launcher: ReloadLauncher, request_for: Request, ours: Callable[[], set[int]]
) -> None:
    launcher.launch(request_for()).stop()
    with launcher.launch(request_for(instances=2)) as server:
        for pid in ours():
            os.kill(pid, signal.SIGKILL)
        assert await_death(server).cause is Cause.CRASHED
    with launcher.launch(request_for()) as server:
        assert infer(server, "identity").size


def test_a_candidate_that_is_never_ready(
    launcher: ReloadLauncher, request_for: Request, ours: Callable[[], set[int]]
) -> None:
    launcher.launch(request_for("hangs")).stop()
    with pytest.raises(LaunchError, match="'hangs' does not load: not ready after 1s") as caught:
        launcher.launch(request_for("hangs", deadline_s=1, hang_when_batch_exceeds="initialize"))
    assert caught.value.cause is Cause.TIMED_OUT
    assert not ours()


def test_a_second_candidate_at_the_same_time_has_a_server_of_its_own(
    launcher: ReloadLauncher, request_for: Request
) -> None:
    with launcher.launch(request_for(instances=1)) as one, launcher.launch(request_for(instances=2)) as two:
        assert one.endpoint.address != two.endpoint.address
        assert [config_of(each).instance_group[0].count for each in (one, two)] == [1, 2]


def test_another_model_has_another_server(launcher: ReloadLauncher, request_for: Request) -> None:
    launcher.launch(request_for()).stop()
    with launcher.launch(request_for("slow")) as server:
        assert infer(server, "slow").size
    assert launcher.description.endswith("as a process, reloaded")
    assert launcher.remove_leftovers() == ()
    assert launcher.machine.cpus


def test_what_only_a_new_server_takes_starts_one(launcher: ReloadLauncher, request_for: Request) -> None:
    addresses = []
    for patch in (Patch(), Patch(env={"SETTINGS_DELAY_MS": "1"}), Patch(env={"SETTINGS_DELAY_MS": "1"}), Patch()):
        with launcher.launch(replace(request_for(), patch=patch)) as server:
            addresses.append(server.endpoint.address)
    assert addresses[0] != addresses[1] == addresses[2] != addresses[3]
