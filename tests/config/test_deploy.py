from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tuner.config.deploy import (
    JOURNAL,
    Replacement,
    finish_replacing,
    is_byproduct,
    is_half_replaced,
    replace_files,
    sha256_of,
)
from tuner.config.repository import ModelRepository
from tuner.core.errors import ConfigError, RepositoryError

OLD, NEW = "# é\r\nmax_batch_size: 1\n", "# ü\nmax_batch_size: 2\n"


def replace_config(path: Path, text: str, *, expected_sha256: str | None) -> Path | None:
    """Replace one file of a repository. Returns the backup."""
    (backup,) = replace_files(path.parent, [Replacement(path, text, expected_sha256)])
    return backup


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


def _replacements(root: Path) -> list[Replacement]:
    """Replacements of two files of a repository, which are made."""
    replacements = []
    for name in ("encoder/config.pbtxt", "encoder/1/model.json"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"old {name}")
        replacements.append(Replacement(path, f"new {name}", sha256_of(path)))
    return replacements


@pytest.fixture
def two_files(tmp_path: Path) -> list[Replacement]:
    """Replacements of two files of a repository, and of one that is new."""
    return [*_replacements(tmp_path), Replacement(tmp_path / "encoder/new.yaml", "new", None)]


def _texts(replacements: list[Replacement]) -> list[str | None]:
    return [r.path.read_text() if r.path.exists() else None for r in replacements]


def test_several_files_are_replaced_together(tmp_path: Path, two_files: list[Replacement]) -> None:
    old = _texts(two_files)
    backups = replace_files(tmp_path, two_files)
    assert _texts(two_files) == [r.text for r in two_files]
    assert [backup and backup.read_text() for backup in backups] == old
    assert not is_half_replaced(tmp_path)
    assert all(is_byproduct(backup.name) for backup in backups if backup)


def test_if_one_file_has_changed_none_is_replaced(tmp_path: Path, two_files: list[Replacement]) -> None:
    two_files[1].path.write_text("by hand")
    old, before = _texts(two_files), sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=r"model\.json: has changed since it was read; nothing was written$"):
        replace_files(tmp_path, two_files)
    assert _texts(two_files) == old
    assert sorted(tmp_path.rglob("*")) == before


_KILLED = """\
import json, os, signal, sys
from pathlib import Path
from tuner.config import deploy
from tuner.core import atomic_file
steps, left = 0, int(sys.argv[2])
def counted(function):
    def call(*arguments, **more):
        global steps
        if steps == left:
            os.kill(os.getpid(), signal.SIGKILL)
        steps += 1
        return function(*arguments, **more)
    return call
os.fsync, Path.replace, Path.unlink = map(counted, (os.fsync, Path.replace, Path.unlink))
root = Path(sys.argv[1])
items = json.loads(sys.argv[3])
deploy.replace_files(root, [deploy.Replacement(root / p, text, sha) for p, text, sha in items])
print("done")
"""


@pytest.mark.slow
def test_a_kill_at_any_step_replaces_all_files_or_none(tmp_path: Path) -> None:
    """A process is killed before its n-th write to the disk; the next one finishes what counts, or it never was."""
    ended: list[str] = []
    for step in itertools.count():
        root = tmp_path / str(step)
        replacements = _replacements(root)
        items = json.dumps([(str(r.path.relative_to(root)), r.text, r.expected_sha256) for r in replacements])
        command = [sys.executable, "-c", _KILLED, str(root), str(step), items]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        if process.stdout == "done\n":
            break
        assert process.returncode == -signal.SIGKILL, process.stderr
        half = is_half_replaced(root)
        assert finish_replacing(root) is half
        old, new = [f"old {r.path.relative_to(root)}" for r in replacements], [r.text for r in replacements]
        now = _texts(replacements)
        assert now in (old, new)
        ended.append("new" if now == new else "old")
        assert not is_half_replaced(root)
        # What the killed one left in the way of the next is gone after it.
        if now == old:
            replace_files(root, replacements)
            assert _texts(replacements) == new
        assert [p for p in root.rglob("*") if ".new-" in p.name] == []
    assert {"old", "new"} <= set(ended)


def test_a_damaged_journal_is_an_error(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text("[[1]]")
    with pytest.raises(ConfigError, match="is damaged; compare the files with their backups, and remove it"):
        finish_replacing(tmp_path)
    with pytest.raises(RepositoryError, match=r"killed midway; tritontune export RUN_DIR --in-place finishes it$"):
        ModelRepository.open(tmp_path)
