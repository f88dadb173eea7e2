"""Launches with the repository copied into the container, as where the engine does not see our files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container
from support.docker_image import IMAGE, container_of, containers_of, volumes_of

from tuner.config.repository import ModelRepository
from tuner.config.staging import stage
from tuner.core.errors import TuningError
from tuner.servers.docker import file_transfer as docker_transfer
from tuner.servers.docker.binds import Bind, binds_of
from tuner.servers.docker.launcher import DockerLauncher
from tuner.servers.protocols import Launch, Server
from tuner.testing.launcher_contract import LauncherContract, Traces, infer
from tuner.testing.repositories import ModelRepositoryFactory

pytestmark = pytest.mark.docker


@pytest.fixture
def launcher() -> Iterator[DockerLauncher]:
    launcher = DockerLauncher(IMAGE, always_copy=True)
    yield launcher
    launcher.close()


@pytest.fixture
def staged(model_repository: ModelRepositoryFactory, tmp_path: Path) -> Launch:
    """A staged copy of a user's repository, with the model `identity`."""
    model_repository.add("identity")
    copy = stage(ModelRepository.open(model_repository.path), tmp_path / "staged")
    return Launch(copy.path, "identity", tmp_path / "server.log", 60)


class TestDockerLauncherThatCopies:
    """What of the contract files that are copied may change; the rest is the same code as where they are mounted."""

    request_for = LauncherContract.request_for
    test_completes_a_model_without_config = LauncherContract.test_completes_a_model_without_config
    test_loads_links_into_another_folder = LauncherContract.test_loads_links_into_another_folder
    test_two_at_a_time = LauncherContract.test_two_at_a_time
    test_takes_paths_with_spaces = LauncherContract.test_takes_paths_with_spaces
    test_never_ready = LauncherContract.test_never_ready
    test_stop_twice_leaves_nothing = LauncherContract.test_stop_twice_leaves_nothing
    test_removes_what_a_killed_owner_left_behind = (
        LauncherContract.test_removes_what_a_killed_owner_left_behind_and_nothing_else
    )

    @pytest.fixture
    def launcher_source(self) -> str:
        source = "from tuner.servers.docker.launcher import DockerLauncher"
        return f"{source}\nlauncher = DockerLauncher({IMAGE!r}, always_copy=True)"

    @pytest.fixture
    def traces(self, engine: docker.DockerClient) -> Traces:
        def of(pid: int) -> set[str]:
            volumes = volumes_of(pid, engine)
            if pid == os.getpid():  # the models' files are the launcher's
                volumes = {name for name in volumes if not name.endswith("-files")}
            return containers_of(pid, engine) | volumes

        return of


def test_no_file_is_mounted_where_files_are_copied(
    launcher: DockerLauncher, staged: Launch, engine: docker.DockerClient
) -> None:
    with launcher.launch(staged) as server:
        assert infer(server, "identity").size
        assert {mount["Type"] for mount in container_of(server, engine).attrs["Mounts"]} == {"volume"}


def test_models_are_copied_once_and_anew_when_they_change(
    launcher: DockerLauncher,
    staged: Launch,
    model_repository: ModelRepositoryFactory,
    engine: docker.DockerClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copied: list[str] = []
    put = Container.put_archive

    def note(container: Container, path: str, data: Iterator[bytes]) -> bool:
        copied.append(path)
        return put(container, path, data)

    monkeypatch.setattr(Container, "put_archive", note)
    launcher.launch(staged).stop()
    launcher.launch(staged).stop()
    assert copied.count("/tritontune/files") == 1
    assert copied.count("/tritontune/run") >= 2
    code = model_repository.path / "identity" / "1" / "model.py"
    code.write_text(code.read_text() + "\nraise ValueError('these are other weights')\n")
    with pytest.raises(Exception, match="these are other weights"):
        launcher.launch(staged)
    assert copied.count("/tritontune/files") == 2

    # An engine's volumes can be removed by others between two launches.
    (name,) = volumes_of(os.getpid(), engine)
    engine.volumes.get(name).remove()
    with pytest.raises(Exception, match="these are other weights"):
        launcher.launch(staged)
    assert copied.count("/tritontune/files") == 3


def test_the_volume_of_the_models_goes_with_the_launcher(staged: Launch, engine: docker.DockerClient) -> None:
    launcher = DockerLauncher(IMAGE, always_copy=True)
    launcher.launch(staged).stop()
    assert len(volumes_of(os.getpid(), engine)) == 1
    del launcher
    assert not volumes_of(os.getpid(), engine)


def test_a_model_may_write_beside_itself_and_not_to_its_files(
    launcher: DockerLauncher, staged: Launch, engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.getuid() == 0:  # any other user is more of a test; only root can play one
        monkeypatch.setattr(os, "getuid", lambda: 65534)
        monkeypatch.setattr(os, "getgid", lambda: 65534)
        monkeypatch.setattr(os, "getgroups", list)
    with launcher.launch(staged) as server:
        container = container_of(server, engine)
        beside = "/tritontune/run/repository/identity/1"
        assert container.exec_run(["touch", f"{beside}/cache"]).exit_code == 0
        code, said = container.exec_run(["sh", "-c", f": >> $(readlink {beside}/model.py)"], user="0")
        assert code != 0
        assert b"Read-only" in said


def test_a_file_that_cannot_be_copied_ends_the_run(
    launcher: DockerLauncher, staged: Launch, engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def refuse(path: Path, *args: object, **options: object) -> object:
        if path.name == "model.py" and args == ("rb",):
            raise PermissionError(13, "Permission denied", str(path))  # root may do anything
        return opened(path, *args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(TuningError, match="model.py: cannot be copied into the container: Permission denied"):
        launcher.launch(staged)
    assert not containers_of(os.getpid(), engine)


class TestWhatTheEngineSees:
    @pytest.fixture
    def launcher(self) -> Iterator[DockerLauncher]:
        launcher = DockerLauncher(IMAGE)
        yield launcher
        launcher.close()

    @staticmethod
    def _kinds(server: Server, engine: docker.DockerClient) -> set[str]:
        return {mount["Type"] for mount in container_of(server, engine).attrs["Mounts"]}

    def test_our_files_are_mounted(self, launcher: DockerLauncher, staged: Launch, engine: docker.DockerClient) -> None:
        with launcher.launch(staged) as server:
            assert self._kinds(server, engine) == {"bind"}
        assert {path.name for path in staged.repository.iterdir()} == {"identity"}

    def test_other_files_of_the_same_paths_are_not(
        self,
        launcher: DockerLauncher,
        staged: Launch,
        model_repository: ModelRepositoryFactory,
        engine: docker.DockerClient,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        code = model_repository.path / "identity" / "1" / "model.py"
        seen = code.stat()
        real = Path.stat

        def here(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
            """As if the engine's machine had another version of the file."""
            found = real(path, follow_symlinks=follow_symlinks)
            values = list(found)
            if path == code and stat.S_ISREG(found.st_mode):
                values[stat.ST_MTIME] = int(seen.st_mtime) - 60
                return os.stat_result(values)
            return found

        monkeypatch.setattr(Path, "stat", here)
        with launcher.launch(staged) as server:
            assert self._kinds(server, engine) == {"volume"}

    def test_a_folder_that_is_not_there_is_not(
        self, launcher: DockerLauncher, staged: Launch, engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def elsewhere(repository: Path) -> tuple[Bind, ...]:
            """As if the engine's machine had no such folders."""
            first, *others = binds_of(repository)
            return (first, *(Bind(Path("/nowhere") / bind.source.name, bind.target) for bind in others))

        monkeypatch.setattr(docker_transfer, "binds_of", elsewhere)
        with launcher.launch(staged) as server:
            assert self._kinds(server, engine) == {"volume"}
