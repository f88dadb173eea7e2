from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
import tritonclient.grpc as triton
from support.command_line import await_that
from support.docker_image import IMAGE, container_of, containers_of, pause

from tuner.config.repository import ModelRepository
from tuner.config.staging import stage
from tuner.core.errors import Cause, LaunchError, ServerDiedError, ServerError, ServerHungError
from tuner.core.proc import oom_kills
from tuner.options.mounts import parse_mount
from tuner.servers.docker.container_options import ContainerOptions
from tuner.servers.docker.launcher import DockerLauncher
from tuner.servers.docker.watch import ContainerWatch
from tuner.servers.protocols import Launch, Server
from tuner.servers.server import End
from tuner.testing.launcher_contract import await_death, infer
from tuner.testing.repositories import ModelRepositoryFactory, config_text

pytestmark = pytest.mark.docker

MIB = 1 << 20


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> ModelRepositoryFactory:
    """A user's repository, of which `server` serves a staged copy."""
    factory = ModelRepositoryFactory(tmp_path_factory.mktemp("users"))
    factory.add("identity")
    return factory


@pytest.fixture(scope="module")
def server(
    engine: docker.DockerClient, users: ModelRepositoryFactory, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """One that nobody harms."""
    assert engine.ping()
    folder = tmp_path_factory.mktemp("run")
    staged = stage(ModelRepository.open(users.path), folder / "staged")
    with DockerLauncher(IMAGE).launch(Launch(staged.path, "identity", folder / "server.log", 60)) as server:
        yield server


@pytest.fixture
def launch(model_repository: ModelRepositoryFactory, tmp_path: Path) -> Callable[..., Server]:
    def start(
        source: str = "identity", config: str | None = None, *, code: str = "", memory_bytes: int | None = None
    ) -> Server:
        model = model_repository.add(source, config=config)
        with (model_repository.path / model / "1" / "model.py").open("a", encoding="utf-8") as file:
            file.write(code)
        request = Launch(model_repository.path, model, tmp_path / "server.log", 60)
        return DockerLauncher(IMAGE, ContainerOptions(memory_bytes=memory_bytes)).launch(request)

    return start


def test_serves_a_staged_repository(server: Server) -> None:
    assert infer(server, "identity", items=3).shape == (3, 4)


def test_the_users_repository_cannot_be_written_to(
    server: Server, engine: docker.DockerClient, users: ModelRepositoryFactory
) -> None:
    code, said = container_of(server, engine).exec_run(["touch", str(users.path / "identity" / "1" / "new")])
    assert code != 0
    assert b"Read-only file system" in said


def test_shared_memory_is_as_large_as_asked(server: Server, engine: docker.DockerClient) -> None:
    assert container_of(server, engine).attrs["HostConfig"]["ShmSize"] == 1 << 30


def test_the_port_is_published_on_the_loopback_interface_alone(server: Server, engine: docker.DockerClient) -> None:
    published = [place["HostIp"] for ports in container_of(server, engine).ports.values() for place in ports or ()]
    assert published == ["127.0.0.1"]


def test_the_command_can_be_repeated(server: Server, engine: docker.DockerClient) -> None:
    name = container_of(server, engine).name or ""
    program, verb, *options = shlex.split(server.command.replace(name, "tritontune-repeated"))
    subprocess.run([program, verb, "--detach", *options], check=True, capture_output=True, timeout=60)
    container = engine.containers.get("tritontune-repeated")
    try:
        await_that(lambda: b"Started GRPCInferenceService" in container.logs())
    finally:
        container.remove(force=True)


def test_what_it_writes_into_the_repository_belongs_to_the_user(
    launch: Callable[..., Server], model_repository: ModelRepositoryFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = os.getuid()
    if uid == 0:  # any other user is more of a test; only root can play one
        uid = 65534
        os.chown(model_repository.path, uid, uid)
        monkeypatch.setattr(os, "getuid", lambda: uid)
        monkeypatch.setattr(os, "getgid", lambda: uid)
    code = "    def initialize(self, args):\n        open(f'{args[\"model_repository\"]}/../written', 'w').close()\n"
    with launch(code=code) as server:
        assert infer(server, "identity").size
    assert (model_repository.path / "written").stat().st_uid == uid


@pytest.fixture
def _the_kernels_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of kills for want of memory, as it is."""
    monkeypatch.setattr("tuner.servers.server.oom_kills", oom_kills)


@pytest.mark.usefixtures("_the_kernels_count")
def test_an_instance_that_outgrows_the_memory(launch: Callable[..., Server]) -> None:
    code = "\n    def execute(self, requests):\n        hoard = b'x' * (1 << 30)\n"
    with launch(code=code, memory_bytes=512 * MIB) as server:
        with pytest.raises(triton.InferenceServerException):
            infer(server, "identity")
        death = await_death(server)
    assert str(death) == "an instance of model 'identity' was ended by SIGKILL (out of memory)"
    assert death.cause is Cause.OUT_OF_MEMORY


@pytest.mark.usefixtures("_the_kernels_count")
def test_a_model_that_does_not_fit(launch: Callable[..., Server]) -> None:
    code = "\n    def initialize(self, args):\n        self.weights = b'x' * (1 << 30)\n"
    with pytest.raises(LaunchError, match="'identity' does not load") as caught:
        launch(code=code, memory_bytes=512 * MIB)
    assert caught.value.cause is Cause.OUT_OF_MEMORY


@pytest.mark.usefixtures("_the_kernels_count")
def test_memory_for_not_even_the_server(launch: Callable[..., Server]) -> None:
    with pytest.raises(LaunchError, match=r"Triton was ended by SIGKILL \(out of memory\)") as caught:
        launch(memory_bytes=16 * MIB)
    assert caught.value.cause is Cause.OUT_OF_MEMORY


def test_a_crashed_instance_is_a_death_though_triton_goes_on(
    launch: Callable[..., Server], engine: docker.DockerClient
) -> None:
    with launch("crashes", config_text(instances=2, crash_when_batch_exceeds=3, crash_with=7)) as server:
        with pytest.raises(triton.InferenceServerException, match="not healthy"):
            infer(server, "crashes", items=4)
        assert str(await_death(server)) == "an instance of model 'crashes' ended with exit code 7"
        assert container_of(server, engine).status == "running"


def test_a_container_that_someone_else_removes(launch: Callable[..., Server], engine: docker.DockerClient) -> None:
    with launch() as server:
        container_of(server, engine).remove(force=True)
        death = await_death(server)
    assert death.cause is Cause.CRASHED
    assert "Started GRPCInferenceService" in death.last_words


def test_a_paused_container_is_removed_all_the_same(launch: Callable[..., Server], engine: docker.DockerClient) -> None:
    server = launch("finalizes")
    pause(container_of(server, engine))
    with pytest.raises(triton.InferenceServerException, match="Deadline"):
        infer(server, "finalizes", timeout_s=0.3)
    server.check()
    server.stop(grace_s=0.5)
    assert str(getattr(server, "mark", None)) not in containers_of(os.getpid(), engine)


def test_a_paused_container_is_the_reason_of_what_fails(
    launch: Callable[..., Server], engine: docker.DockerClient
) -> None:
    def fail() -> None:
        with launch() as server:
            pause(container_of(server, engine))
            raise ServerError("a request failed", cause=Cause.REQUESTS_FAILED)

    with pytest.raises(ServerHungError) as caught:
        fail()
    assert str(caught.value) == "the container is paused: a request failed"
    assert caught.value.cause is Cause.HUNG
    assert "Started GRPCInferenceService" in caught.value.last_words


def test_the_end_of_a_container_is_the_reason_of_what_fails(
    launch: Callable[..., Server], engine: docker.DockerClient
) -> None:
    def fail() -> None:
        with launch() as server:
            container_of(server, engine).kill()
            raise ServerError("a connection broke", cause=Cause.CRASHED)

    with pytest.raises(ServerDiedError, match="Triton was ended by SIGKILL"):
        fail()


def test_on_the_machines_own_network(model_repository: ModelRepositoryFactory, tmp_path: Path) -> None:
    request = Launch(model_repository.path, model_repository.add("identity"), tmp_path / "server.log", 60)
    with DockerLauncher(IMAGE, ContainerOptions(network="host")).launch(request) as server:
        assert server.endpoint.address.startswith("127.0.0.1:")
        assert infer(server, "identity").size
        # Nobody else reaches it.
        assert "--grpc-address=127.0.0.1" in server.command


def test_what_is_asked_of_a_container(
    engine: docker.DockerClient, model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "file").write_text("some weights")
    options = ContainerOptions(
        shm_bytes=64 * MIB,
        memory_bytes=600 * MIB,
        mounts=(parse_mount(f"{tmp_path}/weights:/weights:ro"),),
        environment={"GREETING": "hello there"},
        user="0:0",
        more={"hostname": "somewhere"},
    )
    request = Launch(model_repository.path, model_repository.add("identity"), tmp_path / "server.log", 60)
    launcher = DockerLauncher(IMAGE, options, ["--log-verbose=1"])
    with launcher.launch(request) as server:
        inside = container_of(server, engine)
        script = "cat /weights/file; echo; echo $GREETING; hostname; id -u; df -k /dev/shm | tail -n 1"
        _, said = inside.exec_run(["sh", "-c", script])
        code, _ = inside.exec_run(["touch", "/weights/x"])
    assert isinstance(said, bytes)
    weights, greeting, host, user, shm = said.decode().splitlines()
    assert code != 0
    assert (weights, greeting, host, user) == ("some weights", "hello there", "somewhere", "0")
    assert shm.split()[1] == str(64 * 1024)
    assert inside.attrs["HostConfig"]["Memory"] == 600 * MIB
    assert server.command.endswith("--log-verbose=1")


def test_a_log_that_cannot_be_written(engine: docker.DockerClient) -> None:
    container = engine.containers.run(IMAGE, ["sh", "-c", "echo hello; sleep 60"], detach=True)
    try:
        watch = ContainerWatch(container, Path("/dev/full"))
        await_that(lambda: watch.end is not None)
        assert watch.end == End("can no longer be watched: /dev/full cannot be written: No space left on device")
    finally:
        container.remove(force=True)
