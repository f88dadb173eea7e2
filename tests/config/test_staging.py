from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tuner.config.repository import ModelRepository
from tuner.config.staging import StagedRepository, stage
from tuner.core.errors import RepositoryError


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "users"
    (path / "mlp/1/__pycache__").mkdir(parents=True)
    (path / "mlp/1/__pycache__/model.pyc").write_text("cached")
    (path / "mlp/1/model.py").write_text("code")
    (path / "mlp/config.pbtxt").write_bytes(b"# mine\r\nmax_batch_size: 8\n")
    (path / "ensemble/1").mkdir(parents=True)
    (path / "ensemble/config.pbtxt").write_text('platform: "ensemble"')
    (path / "auto/1").mkdir(parents=True)
    (path / "auto/1/config.pbtxt").write_text("not the model's")
    (path / "shared.py").write_text("shared")
    return path


def staged(users: Path, into: Path) -> StagedRepository:
    return stage(ModelRepository.open(users), into)


def snapshot(path: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(path)): p.read_bytes() if p.is_file() else None for p in path.rglob("*")}


def test_folders_and_configs_are_ours_and_files_are_links(users: Path, tmp_path: Path) -> None:
    copy = staged(users, tmp_path / "run/work/repository")
    assert copy.path == tmp_path / "run/work/repository"
    assert copy.models == ("auto", "ensemble", "mlp")
    kinds = {
        str(path.relative_to(copy.path)): "link" if path.is_symlink() else "folder" if path.is_dir() else "file"
        for path in copy.path.rglob("*")
    }
    assert kinds == {
        "auto": "folder",
        "auto/1": "folder",
        "auto/1/config.pbtxt": "link",
        "ensemble": "folder",
        "ensemble/1": "folder",
        "ensemble/config.pbtxt": "file",
        "mlp": "folder",
        "mlp/1": "folder",
        "mlp/1/model.py": "link",
        "mlp/config.pbtxt": "file",
        "shared.py": "link",
    }
    assert (copy.path / "mlp/1/model.py").readlink() == users / "mlp/1/model.py"
    assert (copy.path / "mlp/config.pbtxt").read_bytes() == b"# mine\r\nmax_batch_size: 8\n"


def test_a_copy_is_a_repository_with_the_same_models(users: Path, tmp_path: Path) -> None:
    ours = ModelRepository.open(staged(users, tmp_path / "copy").path)
    theirs = ModelRepository.open(users)
    assert [model.versions for model in ours.models] == [model.versions for model in theirs.models]
    assert [model.fingerprint() for model in ours.models] == [model.fingerprint() for model in theirs.models]


def test_links_become_real_folders_and_links_to_the_real_files(users: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/weights").write_text("w")
    (users / "mlp/2").symlink_to(tmp_path / "data")
    (users / "mlp/1/alias").symlink_to("model.py")
    (users / "mlp/1/round").symlink_to("..")
    (users / "mlp/1/dangling").symlink_to("missing")
    (users / "twin").symlink_to("mlp")
    (users / "auto/config.pbtxt").symlink_to(users / "mlp/config.pbtxt")
    (tmp_path / "link").symlink_to("users")
    copy = staged(tmp_path / "link", tmp_path / "copy").path
    assert not (copy / "mlp/2").is_symlink()
    assert (copy / "mlp/2/weights").readlink() == tmp_path / "data/weights"
    assert (copy / "mlp/1/alias").readlink() == users / "mlp/1/model.py"
    assert not (copy / "mlp/1/round").exists()
    assert not (copy / "mlp/1/dangling").is_symlink()
    assert not (copy / "twin").is_symlink()
    assert (copy / "twin/1/model.py").readlink() == users / "mlp/1/model.py"
    assert not (copy / "auto/config.pbtxt").is_symlink()


def test_a_repository_given_by_a_relative_path_is_linked_absolutely(
    users: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    copy = staged(Path("users"), Path("copy"))
    assert copy.path == tmp_path / "copy"
    assert (copy.path / "mlp/1/model.py").readlink() == users / "mlp/1/model.py"


def test_what_is_written_into_the_copy_never_reaches_the_user(users: Path, tmp_path: Path) -> None:
    before = snapshot(users)
    copy = staged(users, tmp_path / "copy")
    (copy.path / "mlp/1/__pycache__").mkdir()
    (copy.path / "mlp/1/__pycache__/model.pyc").write_text("ours")
    copy.write_config("mlp", "max_batch_size: 64")
    copy.write_config("auto", "max_batch_size: 64")
    copy.write_config("ensemble", None)
    assert snapshot(users) == before


def test_a_config_is_put_in_place_and_taken_away(users: Path, tmp_path: Path) -> None:
    copy = staged(users, tmp_path / "copy")
    config = copy.path / "auto/config.pbtxt"
    copy.write_config("auto", None)
    assert not config.exists()
    copy.write_config("auto", "# é\r\n")
    assert config.read_bytes() == "# é\r\n".encode()
    copy.write_config("auto", "max_batch_size: 2")
    assert config.read_text() == "max_batch_size: 2"
    copy.write_config("auto", None)
    assert sorted(path.name for path in config.parent.iterdir()) == ["1"]


def test_a_config_for_no_model_is_an_error(users: Path, tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"no model 'mpl'; did you mean 'mlp'\?"):
        staged(users, tmp_path / "copy").write_config("mpl", "")


def test_a_config_that_cannot_be_written_is_an_error(users: Path, tmp_path: Path) -> None:
    copy = staged(users, tmp_path / "copy")
    (copy.path / "auto").rename(copy.path / "gone")
    with pytest.raises(RepositoryError, match=r"auto/config\.pbtxt: cannot be written: No such file"):
        copy.write_config("auto", "")


def test_the_copy_never_lies_in_the_users_repository(users: Path, tmp_path: Path) -> None:
    linked = tmp_path / "elsewhere/model"
    (linked / "1").mkdir(parents=True)
    (users / "linked").symlink_to(linked)
    before = snapshot(users)
    for into in (users, users / "run/copy", users / "mlp/1/copy", linked / "copy"):
        with pytest.raises(RepositoryError, match="which is never written to"):
            staged(users, into)
    assert snapshot(users) == before


def test_the_copy_needs_a_folder_of_its_own(users: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    staged(users, tmp_path / "copy")
    with pytest.raises(RepositoryError, match=r"copy: is not empty"):
        staged(users, tmp_path / "copy")
    (tmp_path / "file").write_text("x")
    with pytest.raises(RepositoryError, match=r"cannot be staged in .*file: .*exists"):
        staged(users, tmp_path / "file")


def test_a_read_only_repository_is_staged_and_the_copy_is_writable(
    open_folder: Path, as_plain_user: Callable[[], AbstractContextManager[None]]
) -> None:
    users, ours = open_folder / "users", open_folder / "ours"
    (users / "mlp/1").mkdir(parents=True)
    (users / "mlp/config.pbtxt").write_text("max_batch_size: 8")
    for path in (*users.rglob("*"), users):
        path.chmod(0o555 if path.is_dir() else 0o444)
    ours.mkdir()
    ours.chmod(0o777)
    with as_plain_user():
        copy = staged(users, ours / "copy")
        copy.write_config("mlp", "max_batch_size: 9")
        (copy.path / "mlp/1/new").write_text("x")
        assert (copy.path / "mlp/config.pbtxt").read_text() == "max_batch_size: 9"
