"""The contract of launchers. A test class derives from `LauncherContract`, or from `CandidateContract` if the launcher
does not start and stop servers, and provides these fixtures:

launcher         the launcher
launcher_source  Python code that creates the same launcher as the variable `launcher`, for another process
traces           a function from a pid to the resources that servers of that process use on this machine, by name:
                 processes, containers, shared memory, folders
kill             a function that ends a server like a crash
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.grpc as triton

from tuner.config.patch import Patch
from tuner.core.errors import Cause, LaunchError, ServerDiedError
from tuner.servers.client import TritonClient
from tuner.servers.protocols import Launch, Launcher, Server
from tuner.testing.repositories import ModelRepositoryFactory, config_text

Traces = Callable[[int], "set[str]"]

_OWNER = """
import time
from pathlib import Path
from tuner.servers.protocols import Launch
{source}
launcher.launch(Launch(Path({repository!r}), {model!r}, Path({log!r}), 60))
print("ready", flush=True)
time.sleep(600)
"""


def infer(server: Server, model: str, *, items: int = 1, timeout_s: float = 10) -> npt.NDArray[np.float32]:
    """Send one request with a number of items, and return the answer."""
    values = np.arange(4 * items, dtype=np.float32).reshape(items, 4)
    tensor = triton.InferInput("IN", values.shape, "FP32")
    tensor.set_data_from_numpy(values)
    with triton.InferenceServerClient(server.endpoint.address) as client:
        answer: npt.NDArray[np.float32] = client.infer(model, [tensor], client_timeout=timeout_s).as_numpy("OUT")
        return answer


def await_death(server: Server, within_s: float = 60) -> ServerDiedError:
    """Wait until `check` raises, and return its error."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            server.check()
        except ServerDiedError as death:
            return death
        time.sleep(0.01)
    pytest.fail(f"check() noticed nothing in {within_s} s")


def is_listening(address: str) -> bool:
    host, port = address.split(":")
    with socket.socket() as probe:
        probe.settimeout(1)  # a removed container does not answer, not even with a refusal
        return probe.connect_ex((host, int(port))) == 0


class CandidateContract:
    """The contract for loading candidates, for every launcher; see the top of the file for the fixtures.

    Attributes:
        tells_last_words: Whether the launcher sees the server's log.
        gpus: The GPUs of this machine that its servers see by default; None: they run on another machine.
    """

    tells_last_words = True
    gpus: str | None = "all"

    @pytest.fixture
    def request_for(self, model_repository: ModelRepositoryFactory, tmp_path: Path) -> Callable[..., Launch]:
        """Creates a `Launch` of a model from `tuner/testing/models`."""

        def make(source: str, *, deadline_s: float = 60, config: str | None = None) -> Launch:
            model = model_repository.add(source, config=config)
            return Launch(model_repository.path, model, tmp_path / "logs" / "server.log", deadline_s)

        return make

    def test_tells_which_gpus_its_servers_see(self, launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        assert launcher.gpus == self.gpus

    def test_ready_server_answers(self, launcher: Launcher, request_for: Callable[..., Launch]) -> None:
        with launcher.launch(request_for("identity")) as server:
            server.check()
            assert infer(server, "identity", items=2).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]

    def test_completes_a_model_without_config(self, launcher: Launcher, request_for: Callable[..., Launch]) -> None:
        with (
            launcher.launch(request_for("auto_complete", config="")) as server,
            TritonClient(server.endpoint) as client,
        ):
            config = client.model_config("auto_complete")
        assert (config.max_batch_size, config.input[0].name, config.HasField("dynamic_batching")) == (8, "IN", True)

    def test_loads_links_into_another_folder(
        self, launcher: Launcher, model_repository: ModelRepositoryFactory, tmp_path: Path
    ) -> None:
        model_repository.add("identity")
        staged = tmp_path / "staged"
        (staged / "identity" / "1").mkdir(parents=True)
        (staged / "identity" / "config.pbtxt").write_text(config_text(instances=2), encoding="utf-8")
        (staged / "identity" / "1" / "model.py").symlink_to(model_repository.path / "identity" / "1" / "model.py")
        with (
            launcher.launch(Launch(staged, "identity", tmp_path / "log", 60)) as server,
            TritonClient(server.endpoint) as client,
        ):
            assert client.model_config("identity").instance_group[0].count == 2
            assert infer(server, "identity").size

    def test_config_that_triton_refuses(
        self, launcher: Launcher, request_for: Callable[..., Launch], traces: Traces
    ) -> None:
        config = config_text(max_batch_size=8, more="dynamic_batching { preferred_batch_size: [ 16 ] }")
        reason = "preferred size must be <= max batch size" if self.tells_last_words else "failed to poll"
        with pytest.raises(LaunchError, match=reason) as caught:
            launcher.launch(request_for("identity", config=config))
        assert caught.value.cause is Cause.INVALID_CONFIG
        assert "\n" not in str(caught.value)
        assert ("preferred size" in caught.value.last_words) == self.tells_last_words
        assert not traces(os.getpid())

    def test_config_with_a_syntax_error(self, launcher: Launcher, request_for: Callable[..., Launch]) -> None:
        with pytest.raises(LaunchError, match=r'config.pbtxt:.*no field named "max_bach_size"') as caught:
            launcher.launch(request_for("identity", config=config_text(more="max_bach_size: 4")))
        assert caught.value.cause is Cause.INVALID_CONFIG

    def test_model_whose_initialize_raises(self, launcher: Launcher, request_for: Callable[..., Launch]) -> None:
        with pytest.raises(LaunchError, match=r"'refuses'.*ValueError: the weights are elsewhere") as caught:
            launcher.launch(request_for("refuses", config=config_text(message="the weights are elsewhere")))
        assert caught.value.cause is Cause.INVALID_CONFIG

    def test_model_that_finds_no_memory(self, launcher: Launcher, request_for: Callable[..., Launch]) -> None:
        with pytest.raises(LaunchError, match="MemoryError: no room for another instance") as caught:
            launcher.launch(request_for("refuses", config=config_text(instances=2, out_of_memory_when_instances=2)))
        assert caught.value.cause is Cause.OUT_OF_MEMORY

    def test_model_that_crashes_at_its_start(self, launcher: Launcher, request_for: Callable[..., Launch]) -> None:
        with pytest.raises(LaunchError, match="'crashes'") as caught:
            launcher.launch(request_for("crashes", config=config_text(crash_when_batch_exceeds="initialize")))
        assert caught.value.cause is Cause.CRASHED

    def test_unknown_model(self, launcher: Launcher, request_for: Callable[..., Launch], tmp_path: Path) -> None:
        present = request_for("identity")
        with pytest.raises(LaunchError, match="'absent'"):
            launcher.launch(Launch(present.repository, "absent", tmp_path / "log", 60))

    def test_never_ready(self, launcher: Launcher, request_for: Callable[..., Launch], traces: Traces) -> None:
        request = request_for("hangs", deadline_s=2, config=config_text(hang_when_batch_exceeds="initialize"))
        began = time.monotonic()
        with pytest.raises(LaunchError, match=r"'hangs'.*not ready after 2s") as caught:
            launcher.launch(request)
        assert time.monotonic() - began >= 2
        assert caught.value.cause is Cause.TIMED_OUT
        assert not traces(os.getpid())

    def test_what_was_stopped_is_no_server_any_more(
        self, launcher: Launcher, request_for: Callable[..., Launch]
    ) -> None:
        server = launcher.launch(request_for("identity"))
        server.stop()
        server.stop()
        with pytest.raises(ServerDiedError, match="was stopped"):
            server.check()


class LauncherContract(CandidateContract):
    """The contract for launchers that start their own servers.

    Attributes:
        tells_usage: Whether the launcher measures the servers' CPU and memory usage.
    """

    tells_usage = True

    def test_killed_server_is_noticed(
        self,
        launcher: Launcher,
        request_for: Callable[..., Launch],
        kill: Callable[[Server], None],
        traces: Traces,
    ) -> None:
        with launcher.launch(request_for("identity")) as server:
            kill(server)
            death = await_death(server)
        assert death.cause is Cause.CRASHED
        assert death.last_words
        assert not traces(os.getpid())

    def test_two_at_a_time(
        self, launcher: Launcher, request_for: Callable[..., Launch], model_repository: ModelRepositoryFactory
    ) -> None:
        first = request_for("identity")
        second = Launch(model_repository.path, model_repository.add("slow"), first.log.with_name("second.log"), 60)
        with launcher.launch(first) as one, launcher.launch(second) as two:
            assert one.endpoint.address != two.endpoint.address
            assert infer(one, "identity").shape == infer(two, "slow").shape

    def test_takes_paths_with_spaces(self, launcher: Launcher, tmp_path: Path) -> None:
        repository = ModelRepositoryFactory(tmp_path / "a folder; with (odd) 'letters'")
        repository.add("identity")
        with launcher.launch(Launch(repository.path, "identity", tmp_path / "log", 30)) as server:
            assert infer(server, "identity").size

    def test_a_candidate_sets_variables(self, launcher: Launcher, request_for: Callable[..., Launch]) -> None:
        request = request_for("settings")
        with launcher.launch(replace(request, patch=Patch(env={"SETTINGS_DELAY_MS": "1"}))) as server:
            assert "SETTINGS_DELAY_MS=1" in server.command
            assert infer(server, "settings").size
        with pytest.raises(LaunchError, match="soon"):
            launcher.launch(replace(request, patch=Patch(env={"SETTINGS_DELAY_MS": "soon"})))

    def test_a_candidate_sets_arguments(self, launcher: Launcher, request_for: Callable[..., Launch]) -> None:
        request, name = request_for("identity"), "--buffer-manager-thread-count"
        with launcher.launch(replace(request, patch=Patch(server_args={name: "2"}))) as server:
            assert f"{name}=2" in server.command
            assert infer(server, "identity").size
        with pytest.raises(LaunchError):
            launcher.launch(replace(request, patch=Patch(server_args={"--no-such-argument": "1"})))

    def test_tells_what_a_server_takes(self, launcher: Launcher, request_for: Callable[..., Launch]) -> None:
        with launcher.launch(request_for("identity")) as server:
            before = server.usage()
            assert (before is not None) is self.tells_usage
            if before is not None:
                assert 10 << 20 < before.memory_bytes < 4 << 30
                deadline = time.monotonic() + 30
                while ((now := server.usage()) or before).cpu_s <= before.cpu_s:
                    assert time.monotonic() < deadline
                    infer(server, "identity")
                assert now is not None
        assert server.usage() is None

    def test_stop_twice_leaves_nothing(
        self, launcher: Launcher, request_for: Callable[..., Launch], traces: Traces
    ) -> None:
        server = launcher.launch(request_for("identity", config=config_text(instances=2)))
        assert traces(os.getpid())
        assert is_listening(server.endpoint.address)
        server.stop()
        server.stop()
        assert not traces(os.getpid())
        assert not is_listening(server.endpoint.address)
        with pytest.raises(ServerDiedError):
            server.check()

    def test_stop_lets_a_model_finalize(self, launcher: Launcher, request_for: Callable[..., Launch]) -> None:
        request = request_for("finalizes")
        launcher.launch(request).stop()
        assert "goodbye from finalizes_0_0\n" in request.log.read_text(encoding="utf-8")

    def test_stop_of_a_model_that_hangs(
        self, launcher: Launcher, request_for: Callable[..., Launch], traces: Traces
    ) -> None:
        server = launcher.launch(request_for("hangs"))
        with pytest.raises(triton.InferenceServerException, match="Deadline"):
            infer(server, "hangs", timeout_s=0.5)
        server.check()
        server.stop(grace_s=0.5)  # its model hangs for an hour
        assert not traces(os.getpid())

    def test_removes_what_a_killed_owner_left_behind_and_nothing_else(
        self, launcher: Launcher, launcher_source: str, request_for: Callable[..., Launch], traces: Traces
    ) -> None:
        request = request_for("identity")
        with launcher.launch(request) as ours, abandoned(launcher_source, request) as owner:
            assert any(f"-{owner}-" in name for name in launcher.remove_leftovers())
            assert not traces(owner)
            ours.check()
            assert infer(ours, "identity").size


@contextmanager
def abandoned(launcher_source: str, request: Launch) -> Iterator[int]:
    """Launch in another process, kill that process, and return its pid."""
    script = _OWNER.format(
        source=launcher_source,
        repository=str(request.repository),
        model=request.model,
        log=str(request.log.with_name("abandoned.log")),
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as owner:
        try:
            assert owner.stdout is not None
            assert owner.stdout.readline() == "ready\n"
        finally:
            owner.send_signal(signal.SIGKILL)
        owner.wait()
        yield owner.pid
