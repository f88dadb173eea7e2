"""The manifest of a repository, and hashes that are remembered."""

from __future__ import annotations

import os
import pickle
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.cluster.files import manifest as module
from tuner.cluster.files.manifest import FileEntry, HashMemory, Manifest, list_repository, sha256_of
from tuner.config.repository import ModelRepository
from tuner.config.staging import stage
from tuner.core.errors import RepositoryError

HASH = "ab" * 32
BIG = b"0" * (1 << 20)


def entry(path: str, *, sha256: str = HASH, size: int = 3) -> FileEntry:
    return FileEntry(path, sha256, size, 0o644)


def repository(folder: Path) -> ModelRepository:
    (folder / "mlp/1").mkdir(parents=True)
    (folder / "mlp/config.pbtxt").write_text('backend: "python"')
    (folder / "mlp/1/model.py").write_text("pass")
    return ModelRepository.open(folder)


def listed(repo: ModelRepository, notes: list[str] | None = None) -> Manifest:
    taken: list[str] = [] if notes is None else notes
    return list_repository(repo, HashMemory(None), taken.append).manifest


def test_a_manifest_lists_what_staging_copies(tmp_path: Path) -> None:
    repo = repository(tmp_path / "models")
    root = tmp_path / "models"
    (tmp_path / "elsewhere.bin").write_bytes(b"weights")
    (root / "mlp/1/model.bin").symlink_to(tmp_path / "elsewhere.bin")
    (root / "mlp/1/run.sh").write_text("#!/bin/sh")
    (root / "mlp/1/run.sh").chmod(0o755)
    (root / "mlp/1/dangling").symlink_to("nowhere")
    (root / "mlp/1/__pycache__").mkdir()
    (root / "mlp/1/__pycache__/x.pyc").write_bytes(b"")
    (root / "mlp/1/empty").mkdir()
    os.mkfifo(root / "mlp/1/pipe")
    manifest = listed(repo)
    staged = stage(repo, tmp_path / "staged")
    copied = {str(Path("models") / path.relative_to(staged.path)): path for path in staged.path.rglob("*")}
    assert set(manifest.folders) == {"models"} | {name for name, path in copied.items() if path.is_dir()}
    assert {file.path: file.sha256 for file in manifest.files} == {
        name: sha256_of(path) for name, path in copied.items() if path.is_file()
    }
    assert {file.path for file in manifest.files if file.executable} == {"models/mlp/1/run.sh"}
    assert manifest.size == sum(path.stat().st_size for path in copied.values() if path.is_file())


def test_files_beside_the_repository_are_listed_when_the_code_names_them(tmp_path: Path) -> None:
    repo = repository(tmp_path / "models")
    (tmp_path / "models/mlp/1/model.py").write_text('open("../common/labels.txt")')
    (tmp_path / "common").mkdir()
    (tmp_path / "common/labels.txt").write_text("cat")
    (tmp_path / "unnamed.txt").write_text("dog")
    paths = [file.path for file in listed(repo).files]
    assert paths == ["common/labels.txt", "models/mlp/1/model.py", "models/mlp/config.pbtxt"]


def test_a_large_folder_beside_the_repository_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BESIDE", 2)
    repo = repository(tmp_path / "models")
    (tmp_path / "models/mlp/1/model.py").write_text('open("../common/labels.txt")')
    (tmp_path / "common").mkdir()
    for name in "abc":
        (tmp_path / "common" / name).touch()
    notes: list[str] = []
    assert listed(repo, notes).folders[0] == "models"
    assert [note.split(",")[0] for note in notes] == [f"{tmp_path}/common is not sent to the hosts with the repository"]


def test_the_digest_depends_on_names_contents_and_permissions(tmp_path: Path) -> None:
    repo = repository(tmp_path / "models")
    first = listed(repo)
    assert listed(repo).digest == first.digest
    file = tmp_path / "models/mlp/1/model.py"
    digests = {first.digest}
    file.chmod(0o755)
    digests.add(listed(repo).digest)
    file.write_text("other")
    digests.add(listed(repo).digest)
    (tmp_path / "models/mlp/1/empty").mkdir()
    digests.add(listed(repo).digest)
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("../etc/passwd", "'..' is not a folder name"),
        ("models/../../x", "'..' is not a folder name"),
        ("/etc/passwd", "'' is not a folder name"),
        ("models//x", "'' is not a folder name"),
        ("models/./x", "'.' is not a folder name"),
        ("models/x\0", "contains a control character"),
        ("models/" + "x" * 256, "is longer than 255 bytes"),
        ("models/a", "is listed twice"),
        ("models/a/b", "its folder is not listed before it"),
        ("other/x", "its folder is not listed before it"),
        ("", "'' is not a folder name"),
    ],
)
def test_a_manifest_from_elsewhere_is_checked(bad: str, reason: str) -> None:
    as_file = Manifest("models", ("models",), (entry("models/a"), entry(bad)))
    as_folder = Manifest("models", ("models", bad), (entry("models/a"),))
    with pytest.raises(RepositoryError, match=reason):
        pickle.loads(pickle.dumps(as_file)).check()  # noqa: S301 (what the test wrote)
    if bad != "models/a":
        with pytest.raises(RepositoryError, match=reason):
            as_folder.check()


@pytest.mark.parametrize(
    "bad",
    [
        Manifest("models", ("models",), (entry("models/a", sha256="../../x"),)),
        Manifest("models", ("models",), (entry("models/a", sha256=HASH.upper()),)),
        Manifest("models", ("models",), (entry("models/a", size=-1),)),
        Manifest("..", ("models",), ()),
        Manifest("", ("models",), ()),
    ],
)
def test_hashes_sizes_and_the_name_of_the_repository_are_checked(bad: Manifest) -> None:
    with pytest.raises(RepositoryError, match="manifest: "):
        bad.check()


parts = st.text(st.characters(codec="utf-8"), max_size=4) | st.sampled_from(["..", ".", "a", "b", "/", "\0"])


@given(st.lists(st.lists(parts, min_size=1, max_size=4).map("/".join), max_size=6), st.data())
def test_no_manifest_that_passes_leads_out_of_its_folder(paths: list[str], data: st.DataObject) -> None:
    folders = ["r", *(path for path in paths if data.draw(st.booleans()))]
    manifest = Manifest("r", tuple(folders), tuple(entry(path) for path in paths if path not in folders))
    try:
        manifest.check()
    except RepositoryError:
        return
    for path in (*manifest.folders, *(file.path for file in manifest.files)):
        assert os.path.normpath(Path("/root") / path) == "/root/" + path


class TestHashMemory:
    """Hashes of big files are remembered until the file changes."""

    @staticmethod
    def file(folder: Path, content: bytes = BIG) -> Path:
        path = folder / "big"
        path.write_bytes(content)
        os.utime(path, (1000, 1000))
        return path

    def test_a_hash_is_computed_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = self.file(tmp_path)
        memory = HashMemory(tmp_path / "hashes.json")
        digest = memory.hash_of(path, path.stat())
        memory.save()
        monkeypatch.setattr(module, "sha256_of", None)
        assert HashMemory(tmp_path / "hashes.json").hash_of(path, path.stat()) == digest

    @pytest.mark.parametrize("change", ["size", "time", "inode"])
    def test_a_changed_file_is_hashed_again(self, tmp_path: Path, change: str) -> None:
        path = self.file(tmp_path)
        memory = HashMemory(None)
        memory.hash_of(path, path.stat())
        if change == "inode":
            path.rename(tmp_path / "old")
        path.write_bytes(b"1" * (len(BIG) + (change == "size")))
        os.utime(path, (1000, 1001 if change == "time" else 1000))
        assert memory.hash_of(path, path.stat()) == sha256_of(path)

    def test_a_file_that_was_just_written_is_hashed_again(self, tmp_path: Path) -> None:
        path = self.file(tmp_path)
        os.utime(path, (1000, time.time()))
        memory = HashMemory(None)
        memory.hash_of(path, path.stat())
        before = path.stat()
        path.write_bytes(b"1" * len(BIG))
        os.utime(path, ns=(0, before.st_mtime_ns))
        assert memory.hash_of(path, path.stat()) == sha256_of(path)

    def test_a_hash_grows_old(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = self.file(tmp_path)
        now = [2000.0]
        memory = HashMemory(None, 60, lambda: now[0])
        memory.hash_of(path, path.stat())
        monkeypatch.setattr(module, "sha256_of", lambda _: "again")
        assert memory.hash_of(path, path.stat()) != "again"
        now[0] += 61
        assert memory.hash_of(path, path.stat()) == "again"

    @pytest.mark.parametrize("content", [b"", b"[]", b'{"a": 1}', b"\xff", b'{"x": [1, 2, 3, 4, 5]}'])
    def test_a_damaged_memory_costs_only_time(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "hashes.json").write_bytes(content)
        path = self.file(tmp_path)
        assert HashMemory(tmp_path / "hashes.json").hash_of(path, path.stat()) == sha256_of(path)

    def test_a_file_that_changes_while_it_is_read_is_an_error(self, tmp_path: Path) -> None:
        path = self.file(tmp_path)
        before = path.stat()
        path.write_bytes(b"longer" + BIG)
        with pytest.raises(RepositoryError, match="changed while it was read"):
            HashMemory(None).hash_of(path, before)
