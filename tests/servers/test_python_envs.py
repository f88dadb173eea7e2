from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from support.command_line import await_that

from tuner.servers import python_envs
from tuner.servers.process import ProcessLauncher
from tuner.servers.protocols import Launch
from tuner.servers.python_envs import remove_python_envs
from tuner.testing.repositories import ModelRepositoryFactory


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(python_envs, "_PLACE", tmp_path)
    return tmp_path


@pytest.fixture
def fake_triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], psutil.Process]]:
    """Starts a process that has the name of one."""
    binary = tmp_path_factory.mktemp("bin") / "tritonserver"
    binary.symlink_to("/bin/sleep")
    started: list[subprocess.Popen[bytes]] = []

    def start() -> psutil.Process:
        started.append(subprocess.Popen([binary, "60"]))
        process = psutil.Process(started[-1].pid)
        await_that(lambda: process.name() == "tritonserver")
        return process

    yield start
    for each in started:
        each.kill()
        each.wait()


def test_empty_ones_go_and_others_stay(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_envs, "_backends", lambda _: iter(()))
    for name in ("python_env_abc123", "python_env_full00", "python_env_other_name", "else"):
        (place / name).mkdir()
    (place / "python_env_full00/0").mkdir()
    (place / "python_env_afile0").touch()
    assert remove_python_envs() == 1
    assert not (place / "python_env_abc123").exists()
    assert len(list(place.iterdir())) == 4


@pytest.mark.parametrize(
    ("kind", "at", "namespace", "removed"),
    [
        ("ext4", "/", 4026531836, 1),
        ("nfs4", "/", 4026531836, 0),
        ("fuse.glusterfs", "PLACE", 4026531836, 0),
        ("ext4", "PLACE", 4026531836, 1),
        ("overlay", "/", 4026532000, 1),
        ("tmpfs", "PLACE", 4026532000, 1),
        ("ext4", "PLACE", 4026532000, 0),
    ],
)
def test_where_others_may_be_at_work_unseen_all_stays(  # noqa: PLR0917
    kind: str, at: str, namespace: int, removed: int, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a network file system another host, and in a folder that is mounted into containers another container."""
    mounts = place.parent / "mountinfo"
    mounts.write_text(
        "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
        f"28 27 0:25 / {str(place) if at == 'PLACE' else at} rw,relatime shared:1 - {kind} somewhere rw\n"
    )
    monkeypatch.setattr(python_envs, "_MOUNTS", mounts)
    monkeypatch.setattr(python_envs, "_backends", lambda _: iter(()))
    monkeypatch.setattr(python_envs, "pid_namespace", lambda: namespace)
    (place / "python_env_abc123").mkdir()
    assert remove_python_envs() == removed


def test_what_a_live_triton_may_have_made_stays(place: Path, fake_triton: Callable[[], psutil.Process]) -> None:
    fake_triton()
    (place / "python_env_abc123").mkdir()
    assert remove_python_envs() == 0
    assert (place / "python_env_abc123").exists()


def test_what_was_there_before_every_live_triton_goes(
    place: Path, fake_triton: Callable[[], psutil.Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "python_env_abc123").mkdir()
    made = time.time()
    process = fake_triton()
    # As if it had come much later; others on this machine may be at work, too.
    monkeypatch.setattr(python_envs, "_backends", lambda _: iter([process.create_time() + 60]))
    assert process.create_time() + 60 > made
    assert remove_python_envs() == 1


@pytest.mark.triton
def test_a_server_leaves_none(
    triton_launcher: ProcessLauncher,
    model_repository: ModelRepositoryFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def there() -> set[Path]:
        return set(Path("/tmp").glob("python_env_??????"))  # noqa: S108 (where the backend has them)

    before = there()
    launch = Launch(model_repository.path, model_repository.add("identity"), tmp_path / "log", 30)
    with triton_launcher.launch(launch):
        made = there() - before
        assert made
        # Tritons of others on this machine, which may be at work, are not what this is about.
        monkeypatch.setattr(python_envs, "_backends", lambda _: iter(()))
        monkeypatch.setattr(python_envs, "_empty_ones", lambda: ((folder, time.time()) for folder in made))
    assert not made & there()
