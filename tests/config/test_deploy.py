from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tuner.config.deploy import replace_config, sha256_of
from tuner.core.errors import ConfigError

OLD, NEW = "# é\r\nmax_batch_size: 1\n", "# ü\nmax_batch_size: 2\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    config = tmp_path / "config.pbtxt"
    config.write_bytes(OLD.encode())
    return config


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_the_digest_is_that_of_the_bytes(path: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(OLD.encode()).hexdigest()
    (tmp_path / "link").symlink_to(path)
    assert [sha256_of(path), sha256_of(tmp_path / "link")] == [digest, digest]
    assert sha256_of(tmp_path / "missing") is None
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        sha256_of(tmp_path)


def test_a_config_is_replaced_and_what_was_there_is_kept(path: Path) -> None:
    backup = replace_config(path, NEW, expected_sha256=sha256_of(path))
    assert backup is not None
    assert path.read_bytes() == NEW.encode()
    assert backup.read_bytes() == OLD.encode()
    assert backup.parent == path.parent
    assert re.fullmatch(r"config\.pbtxt\.bak-\d{8}-\d{6}", backup.name)
    assert names(path.parent) == ["config.pbtxt", backup.name]


def test_a_second_replacement_keeps_both_backups(path: Path) -> None:
    texts = [f"max_batch_size: {n}" for n in range(5)]
    backups = [replace_config(path, text, expected_sha256=sha256_of(path)) for text in texts]
    contents = [backup.read_bytes().decode() for backup in backups if backup]
    assert contents == [OLD, *texts[:-1]]
    assert len(names(path.parent)) == 6


def test_a_config_comes_into_being(tmp_path: Path) -> None:
    path = tmp_path / "config.pbtxt"
    umask = os.umask(0o027)
    try:
        assert replace_config(path, NEW, expected_sha256=None) is None
    finally:
        os.umask(umask)
    assert path.read_bytes() == NEW.encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert names(tmp_path) == ["config.pbtxt"]


def test_mode_and_owner_stay(path: Path) -> None:
    path.chmod(0o604)
    if os.geteuid() == 0:
        os.chown(path, 1234, 2345)
    before = path.stat()
    backup = replace_config(path, NEW, expected_sha256=sha256_of(path))
    assert backup is not None
    for after in (path.stat(), backup.stat()):
        assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert path.stat().st_ino != before.st_ino


def test_through_a_link_the_file_behind_it_is_replaced(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "model/config.pbtxt"
    link.parent.mkdir()
    link.symlink_to("../config.pbtxt")
    backup = replace_config(link, NEW, expected_sha256=sha256_of(link))
    assert backup is not None
    assert link.is_symlink()
    assert path.read_bytes() == NEW.encode()
    assert backup.parent == tmp_path
    assert names(link.parent) == ["config.pbtxt"]


def test_a_link_that_leads_nowhere_gets_its_file(tmp_path: Path) -> None:
    link = tmp_path / "config.pbtxt"
    link.symlink_to("real")
    assert replace_config(link, NEW, expected_sha256=None) is None
    assert (tmp_path / "real").read_bytes() == NEW.encode()


@pytest.mark.parametrize(
    ("now", "expected", "how"),
    [
        ("max_batch_size: 7", OLD, "has changed since it was read; nothing was written"),
        (None, OLD, "is gone since it was read; nothing was written"),
        (OLD, None, "was created since it was read; nothing was written"),
    ],
)
def test_what_has_changed_meanwhile_is_left_alone(path: Path, now: str | None, expected: str | None, how: str) -> None:
    path.unlink()
    if now is not None:
        path.write_bytes(now.encode())
    digest = expected and hashlib.sha256(expected.encode()).hexdigest()
    with pytest.raises(ConfigError) as raised:
        replace_config(path, NEW, expected_sha256=digest)
    assert str(raised.value) == f"{path}: {how}"
    assert names(path.parent) == ([] if now is None else ["config.pbtxt"])
    assert now is None or path.read_bytes() == now.encode()


@pytest.mark.parametrize(("file_mode", "folder_mode"), [(0o444, 0o777), (0o666, 0o555)])
def test_what_is_read_only_is_left_alone(
    open_folder: Path,
    as_plain_user: Callable[[], AbstractContextManager[None]],
    file_mode: int,
    folder_mode: int,
) -> None:
    path = open_folder / "config.pbtxt"
    path.write_bytes(OLD.encode())
    path.chmod(file_mode)
    open_folder.chmod(folder_mode)
    with as_plain_user(), pytest.raises(ConfigError) as raised:
        replace_config(path, NEW, expected_sha256=sha256_of(path))
    assert str(raised.value) == f"{path}: cannot be written: Permission denied"
    assert path.read_bytes() == OLD.encode()
    assert names(open_folder) == ["config.pbtxt"]


def test_a_replacement_that_fails_leaves_nothing_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(ConfigError, match=r"config\.pbtxt: cannot be written: No space left on device$"):
        replace_config(path, NEW, expected_sha256=sha256_of(path))
    assert names(path.parent) == ["config.pbtxt"]
    assert path.read_bytes() == OLD.encode()


def test_links_in_a_circle_and_folders_are_errors(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ConfigError, match=r"loop: cannot be written: "):
        replace_config(tmp_path / "loop", NEW, expected_sha256=None)
    with pytest.raises(ConfigError, match=r"cannot be written: Is a directory$"):
        replace_config(tmp_path, NEW, expected_sha256=None)
    with pytest.raises(ConfigError, match=r"cannot be written: No such file or directory$"):
        replace_config(tmp_path / "missing/config.pbtxt", NEW, expected_sha256=None)
