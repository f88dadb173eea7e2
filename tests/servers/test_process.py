from __future__ import annotations

import itertools
import json
import os
import shlex
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import tritonclient.grpc as triton

from tuner.core.errors import Cause, LaunchError
from tuner.core.mark import marks_on_files
from tuner.core.proc import lives, read_state
from tuner.servers import arguments, process
from tuner.servers.client import TritonClient
from tuner.servers.installation import TritonInstallation
from tuner.servers.ports import free_port
from tuner.servers.process import ProcessLauncher
from tuner.servers.process_server import ProcessServer
from tuner.servers.processes import marked_processes
from tuner.servers.protocols import Launch, Server
from tuner.testing.launcher_contract import LauncherContract, Traces, abandoned, await_death, infer
from tuner.testing.repositories import ModelRepositoryFactory, config_text

_SOURCE = """
from tuner.servers.installation import find_triton
from tuner.servers.process import ProcessLauncher
launcher = ProcessLauncher(find_triton({path}))
"""
_GOES_DOWN = "Signal (15) received"


def source_of(installation: TritonInstallation) -> str:
    """Lines that make its launcher, for `abandoned`."""
    return _SOURCE.format(path=None if installation.wheel else f"Path({str(installation.binary)!r})")


def server_of(server: Server) -> ProcessServer:
    assert isinstance(server, ProcessServer)
    return server


@pytest.fixture
def traces() -> Traces:
    def find(pid: int) -> set[str]:
        found = {f"{mark} process {process.pid}" for mark, process in marked_processes() if mark.pid == pid}
        return found | {f"{mark} files" for mark in marks_on_files() if mark.pid == pid}

    # Other tests of this process may share a server.
    others = find(os.getpid())
    return lambda pid: find(pid) - others


@pytest.mark.triton
class TestProcessLauncher(LauncherContract):
    @pytest.fixture
    def launcher(self, triton_launcher: ProcessLauncher) -> ProcessLauncher:
        return triton_launcher

    @pytest.fixture
    def launcher_source(self, triton_installation: TritonInstallation) -> str:
        return source_of(triton_installation)

    @pytest.fixture
    def kill(self) -> Callable[[Server], None]:
        return lambda server: os.kill(server_of(server).pid, signal.SIGKILL)


class TestFakeProcess(LauncherContract):
    @pytest.fixture
    def launcher(self, fake_launcher: ProcessLauncher) -> ProcessLauncher:
        return fake_launcher

    @pytest.fixture
    def launcher_source(self, fake_triton: TritonInstallation) -> str:
        return source_of(fake_triton)

    @pytest.fixture
    def kill(self) -> Callable[[Server], None]:
        return lambda server: os.kill(server_of(server).pid, signal.SIGKILL)


BOTH = pytest.mark.parametrize(
    "installation", ["fake_triton", pytest.param("triton_installation", marks=pytest.mark.triton)], indirect=True
)


@pytest.fixture(params=["fake_triton"])
def installation(request: pytest.FixtureRequest) -> TritonInstallation:
    found: TritonInstallation = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def process_launcher(installation: TritonInstallation) -> ProcessLauncher:
    return ProcessLauncher(installation)


@pytest.fixture
def launch(
    process_launcher: ProcessLauncher, model_repository: ModelRepositoryFactory, tmp_path: Path
) -> Callable[..., ProcessServer]:
    def start(source: str, config: str | None = None) -> ProcessServer:
        request = Launch(model_repository.path, model_repository.add(source, config=config), tmp_path / "log", 30)
        return server_of(process_launcher.launch(request))

    return start


def children(server: ProcessServer) -> list[psutil.Process]:
    return psutil.Process(server.pid).children()


def test_says_what_it_is(process_launcher: ProcessLauncher, installation: TritonInstallation) -> None:
    assert installation.version in process_launcher.description
    assert "process" in process_launcher.description


def test_command_names_all_that_was_started(launch: Callable[..., ProcessServer]) -> None:
    with launch("identity") as server:
        assert "tritonserver" in server.command
        assert "--load-model=identity" in server.command
        assert server.endpoint.address.rpartition(":")[2] in server.command


@BOTH
def test_listens_on_the_loopback_interface_alone(launch: Callable[..., ProcessServer]) -> None:
    with launch("identity") as server:
        listening = [c for c in psutil.Process(server.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    # gRPC listens on an IPv6 socket for IPv4, too.
    assert [f"{c.laddr.ip}:{c.laddr.port}".removeprefix("::ffff:") for c in listening] == [server.endpoint.address]


@BOTH
def test_a_crashed_instance_is_a_death_though_triton_goes_on(launch: Callable[..., ProcessServer]) -> None:
    config = config_text(instances=2, crash_when_batch_exceeds=3, crash_with=7)
    with launch("crashes", config) as server:
        assert infer(server, "crashes", items=3).shape == (3, 4)
        server.check()
        with pytest.raises(triton.InferenceServerException, match="not healthy"):
            infer(server, "crashes", items=4)
        death = await_death(server)
        with TritonClient(server.endpoint) as client:
            assert client.is_model_ready("crashes")
    assert str(death) == "an instance of model 'crashes' ended with exit code 7"
    assert death.cause is Cause.CRASHED


def test_a_signal_that_ended_an_instance_is_named(launch: Callable[..., ProcessServer]) -> None:
    with launch("crashes") as server:
        with pytest.raises(triton.InferenceServerException):
            infer(server, "crashes")
        assert "was ended by SIGABRT" in str(await_death(server))


def test_stopping_after_a_crash_does_not_wait(launch: Callable[..., ProcessServer], traces: Traces) -> None:
    server = launch("finalizes", config_text(instances=2))
    children(server)[0].kill()
    await_death(server)
    server.stop()
    # Triton's own way down would hang.
    assert _GOES_DOWN not in server.log.read_text()
    assert not traces(os.getpid())


def test_the_kernels_want_of_memory_is_named(
    launch: Callable[..., ProcessServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    with launch("identity") as server:
        monkeypatch.setattr("tuner.servers.server.oom_kills", lambda: 10**9)
        os.kill(server.pid, signal.SIGKILL)
        death = await_death(server)
    assert death.cause is Cause.OUT_OF_MEMORY
    assert str(death) == "Triton was ended by SIGKILL (out of memory)"


def test_the_kernels_want_of_memory_is_named_while_loading(
    launch: Callable[..., ProcessServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = itertools.count()
    monkeypatch.setattr("tuner.servers.server.oom_kills", lambda: next(kills))
    with pytest.raises(LaunchError, match="not healthy.*out of memory") as caught:
        launch("crashes", config_text(crash_when_batch_exceeds="initialize"))
    assert caught.value.cause is Cause.OUT_OF_MEMORY


def test_a_model_with_nothing_to_finalize_stops_at_once(launch: Callable[..., ProcessServer]) -> None:
    server = launch("identity", config_text(instances=4))
    server.stop()
    # Triton's own way down takes a second for each.
    assert _GOES_DOWN not in server.log.read_text()


def test_stop_ends_processes_that_left_the_session(launch: Callable[..., ProcessServer]) -> None:
    server = launch("spawns")
    (stray,) = (p for p in psutil.Process(server.pid).children(recursive=True) if p.name() == "sleep")
    state = read_state(stray.pid)
    assert state is not None
    server.stop()
    assert not lives(stray.pid, state.started)


def _crashing(installation: TritonInstallation, script: Path, times: int) -> ProcessLauncher:
    """One whose server aborts so many times before it starts."""
    count = script.with_name("count")
    script.write_text(
        "#!/bin/sh\n"
        f"echo x >> {count}\n"
        f"if [ $(wc -l < {count}) -le {times} ]; then echo boost: mutex lock failed; kill -ABRT $$; fi\n"
        f'exec {installation.binary} "$@"\n'
    )
    script.chmod(0o755)
    return ProcessLauncher(replace(installation, binary=script))


def test_a_server_that_crashes_at_its_start_gets_a_second_try(
    installation: TritonInstallation, model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    launcher = _crashing(installation, tmp_path / "triton.sh", times=1)
    log = tmp_path / "server.log"
    with launcher.launch(Launch(model_repository.path, model_repository.add("identity"), log, 30)) as server:
        assert infer(server, "identity").size
    first_line = log.read_text().splitlines()[0]
    assert first_line == (
        "tritontune: Triton was ended by SIGABRT before it was ready (see server.log.first); this is the second attempt"
    )
    assert (tmp_path / "server.log.first").read_text() == "boost: mutex lock failed\n"


def test_a_server_that_crashes_twice_has_failed(
    installation: TritonInstallation, model_repository: ModelRepositoryFactory, tmp_path: Path, traces: Traces
) -> None:
    launcher = _crashing(installation, tmp_path / "triton.sh", times=3)
    with pytest.raises(LaunchError, match="Triton was ended by SIGABRT before it was ready") as caught:
        launcher.launch(Launch(model_repository.path, model_repository.add("identity"), tmp_path / "log", 30))
    assert caught.value.cause is Cause.CRASHED
    assert (tmp_path / "count").read_text() == "x\nx\n"
    assert not traces(os.getpid())


def test_a_server_outlives_the_thread_that_launched_it(launch: Callable[..., ProcessServer]) -> None:
    servers: list[ProcessServer] = []
    thread = threading.Thread(target=lambda: servers.append(launch("identity")))
    thread.start()
    thread.join()
    with servers[0] as server:
        assert infer(server, "identity").size
        server.check()


@BOTH
def test_takes_another_port_when_one_is_lost(
    launch: Callable[..., ProcessServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        ports = iter([taken, taken])
        monkeypatch.setattr(process, "free_port", lambda: next(ports, None) or free_port())
        with launch("identity") as server:
            assert server.endpoint.address != f"127.0.0.1:{taken}"
            assert infer(server, "identity").size


@pytest.mark.slow
def test_gives_up_when_every_port_is_lost(
    launch: Callable[..., ProcessServer], monkeypatch: pytest.MonkeyPatch, traces: Traces
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setattr(process, "free_port", lambda: other.getsockname()[1])
        with pytest.raises(LaunchError, match="took 5 in a row"):
            launch("identity")
    assert not traces(os.getpid())


@BOTH
def test_a_model_without_code_fails_at_once(
    process_launcher: ProcessLauncher, model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    name = model_repository.add("identity")
    (model_repository.path / name / "1" / "model.py").unlink()
    began = time.monotonic()
    with pytest.raises(LaunchError, match="'identity' does not load: Python model file not found"):
        process_launcher.launch(Launch(model_repository.path, name, tmp_path / "log", 60))
    assert time.monotonic() - began < 50  # of the 60 s that it has


@pytest.mark.slow
@BOTH
def test_an_instance_that_dies_unseen_by_triton_is_noticed(
    process_launcher: ProcessLauncher, model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    name = model_repository.add("identity", name="two words")  # more than the way to the Python backend lets pass
    with pytest.raises(LaunchError, match="'two words' does not load") as caught:
        process_launcher.launch(Launch(model_repository.path, name, tmp_path / "log", 60))
    assert caught.value.cause is Cause.CRASHED


def test_more_arguments_reach_triton(
    installation: TritonInstallation, model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    launcher = ProcessLauncher(installation, ["--log-verbose=1"])
    request = Launch(model_repository.path, model_repository.add("identity"), tmp_path / "log", 30)
    with launcher.launch(request) as server:
        assert "--log-verbose=1" in server.command
    assert "Server side auto-completed config" in request.log.read_text(encoding="utf-8")


@BOTH
def test_an_argument_that_triton_does_not_know(
    installation: TritonInstallation, model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    launcher = ProcessLauncher(installation, ["--no-such-flag"])
    with pytest.raises(LaunchError, match="unrecognized option '--no-such-flag'"):
        launcher.launch(Launch(model_repository.path, model_repository.add("identity"), tmp_path / "log", 30))


def test_an_interrupted_launch_leaves_nothing(
    launch: Callable[..., ProcessServer], monkeypatch: pytest.MonkeyPatch, traces: Traces
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        assert traces(os.getpid())
        raise KeyboardInterrupt

    monkeypatch.setattr(process, "await_ready", interrupt)
    with pytest.raises(KeyboardInterrupt):
        launch("identity")
    assert not traces(os.getpid())


@BOTH
def test_the_config_is_the_same_with_and_without_completion(
    launch: Callable[..., ProcessServer], monkeypatch: pytest.MonkeyPatch, model_repository: ModelRepositoryFactory
) -> None:
    with launch("identity") as server, TritonClient(server.endpoint) as client:
        assert "--disable-auto-complete-config" in server.command
        without = client.model_config("identity")
    shutil.rmtree(model_repository.path / "identity")
    monkeypatch.setattr(arguments, "is_complete", lambda _: False)
    with launch("identity") as server, TritonClient(server.endpoint) as client:
        assert "--disable-auto-complete-config" not in server.command
        assert client.model_config("identity") == without


def test_a_server_does_not_outlive_its_owner(
    process_launcher: ProcessLauncher,
    installation: TritonInstallation,
    model_repository: ModelRepositoryFactory,
    tmp_path: Path,
    traces: Traces,
) -> None:
    request = Launch(model_repository.path, model_repository.add("identity"), tmp_path / "log", 30)
    with abandoned(source_of(installation), request) as owner:
        deadline = time.monotonic() + 30
        while any(mark.pid == owner and p.name() == "tritonserver" for mark, p in marked_processes()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert any(f"-{owner}-" in name for name in process_launcher.remove_leftovers())
        assert not traces(owner)


@pytest.mark.parametrize(("variable", "gpus"), [(None, "all"), ("", "none"), ("1,0", "1,0"), ("GPU-abc", "GPU-abc")])
def test_its_servers_see_the_gpus_that_the_environment_shows(
    process_launcher: ProcessLauncher, monkeypatch: pytest.MonkeyPatch, variable: str | None, gpus: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert process_launcher.gpus == gpus


def test_what_is_set_for_a_server_counts_before_our_own_environment(
    installation: TritonInstallation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert ProcessLauncher(installation, environment={"CUDA_VISIBLE_DEVICES": "1"}).gpus == "1"
    assert ProcessLauncher(installation, environment={"CUDA_VISIBLE_DEVICES": ""}).gpus == "none"
    # Handed on.
    assert ProcessLauncher(installation, environment={"CUDA_VISIBLE_DEVICES": None}).gpus == "0"


@BOTH
def test_variables_and_gpus_reach_the_model(
    installation: TritonInstallation,
    model_repository: ModelRepositoryFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOKEN", "a secret")
    seen = tmp_path / "seen"
    model = model_repository.add("identity")
    with (model_repository.path / model / "1" / "model.py").open("a", encoding="utf-8") as file:
        file.write(
            "\n    def initialize(self, args):\n        import json, os\n"
            f"        open({str(seen)!r}, 'w').write(json.dumps(dict(os.environ)))\n"
        )
    launcher = ProcessLauncher(
        installation,
        ["--log-verbose=1"],
        gpus="none",
        environment={"TOKEN": None, "GREETING": "hello there", "PYTHONPATH": "/of/the/user"},
    )
    with launcher.launch(Launch(model_repository.path, model, tmp_path / "log", 60)) as server:
        environment = json.loads(seen.read_text())
        assert "GREETING=***" in shlex.split(server.command)
        assert "CUDA_VISIBLE_DEVICES=" in shlex.split(server.command)
        assert "a secret" not in server.command
    assert environment["TOKEN"] == "a secret"  # noqa: S105 (none)
    assert environment["GREETING"] == "hello there"
    assert environment["CUDA_VISIBLE_DEVICES"] == ""
    assert environment["PYTHONPATH"].split(":")[-1] == "/of/the/user"
    assert launcher.gpus == "none"
    assert launcher.description.endswith(
        "as a process, GPUs none, variables GREETING=*** PYTHONPATH=/of/the/user TOKEN=***, --log-verbose=1"
    )


def test_a_server_that_answers_only_with_a_header_gets_it(
    installation: TritonInstallation, model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    model = model_repository.add("identity")
    arguments = ["--grpc-restricted-protocol=health,metadata,inference,model-config:admin-key=s3cret-1"]
    launch = Launch(model_repository.path, model, tmp_path / "log", 60)
    headers = (("triton-grpc-protocol-admin-key", "s3cret-1"),)
    with ProcessLauncher(installation, arguments, headers=headers).launch(launch) as server:
        assert server.endpoint.headers == headers
    with pytest.raises(LaunchError, match="is restricted, expecting header 'triton-grpc-protocol-admin-key'; set"):
        ProcessLauncher(installation, arguments).launch(launch)
