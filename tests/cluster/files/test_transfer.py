"""Sending a repository to hosts."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from tuner.cluster.files import transfer as module
from tuner.cluster.files.cache import FileCache
from tuner.cluster.files.manifest import FileEntry
from tuner.cluster.files.transfer import HostTree, Inbox, Source, send
from tuner.config.repository import ModelRepository
from tuner.core.errors import RepositoryError, TuningError

WEIGHTS = bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Source.read, "__defaults__", (1000,))
    monkeypatch.setattr(module, "_SMALL", -1)
    monkeypatch.setenv("TRITONTUNE_CACHE", str(tmp_path / "driver"))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    (folder / "mlp/1").mkdir(parents=True)
    (folder / "mlp/2").mkdir()
    (folder / "mlp/config.pbtxt").write_text('backend: "python"')
    (folder / "mlp/1/model.py").write_text("")
    (folder / "mlp/1/weights").write_bytes(WEIGHTS)
    return folder


def source_of(folder: Path) -> Source:
    return Source.of(ModelRepository.open(folder), lambda _: None)


def nothing(_: str) -> None:
    """Take a note."""


class Watched:
    """An inbox that counts bytes, and that fails where a test says so."""

    def __init__(self, inner: Inbox) -> None:
        self.inner = inner
        self.lock = threading.Lock()
        self.bytes = 0
        self.lose_at: set[int] = set()
        self.lose_answer_at: set[int] = set()

    def missing(self) -> tuple[FileEntry, ...]:
        return self.inner.missing()

    def begin(self, file: FileEntry) -> int | None:
        return self.inner.begin(file)

    def receive(self, file: FileEntry, offset: int, chunk: bytes) -> int:
        if offset in self.lose_at:
            self.lose_at.remove(offset)
            raise ConnectionError("lost")
        following = self.inner.receive(file, offset, chunk)
        with self.lock:
            self.bytes += len(chunk)
        if offset in self.lose_answer_at:
            self.lose_answer_at.remove(offset)
            raise ConnectionError("lost")
        return following


def test_a_host_gets_the_repository_once(models: Path, tmp_path: Path) -> None:
    source = source_of(models)
    notes: list[str] = []
    for _ in range(2):
        with HostTree(FileCache(tmp_path / "host"), source.manifest) as tree:
            send(source, tree, "worker-2", notes.append)
            assert sorted(str(path.relative_to(tree.repository)) for path in tree.repository.rglob("*")) == sorted(
                str(path.relative_to(models)) for path in models.rglob("*")
            )
            assert (tree.repository / "mlp/1/weights").read_bytes() == WEIGHTS
            assert ModelRepository.open(tree.repository).model("mlp").versions == (1, 2)
    assert notes == ["sending 3 files, 10 KiB, to worker-2"]


def test_a_changed_file_travels_alone(models: Path, tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "host")
    source = source_of(models)
    with HostTree(cache, source.manifest) as tree:
        send(source, tree, "worker-2", nothing)
    (models / "mlp/1/model.py").write_text("new")
    source = source_of(models)
    with HostTree(cache, source.manifest) as tree:
        watched = Watched(tree)
        send(source, watched, "worker-2", nothing)
        assert watched.bytes == 3
        assert (tree.repository / "mlp/1/model.py").read_text() == "new"


def test_it_continues_after_a_lost_connection(models: Path, tmp_path: Path) -> None:
    source = source_of(models)
    with HostTree(FileCache(tmp_path / "host"), source.manifest) as tree:
        watched = Watched(tree)
        watched.lose_at = {3000}
        watched.lose_answer_at = {5000, 10_000}  # the chunk arrived; 10,000: it was the last one
        for _ in range(3):
            with pytest.raises(ConnectionError):
                send(source, watched, "worker-2", nothing)
        send(source, watched, "worker-2", nothing)
        assert (tree.repository / "mlp/1/weights").read_bytes() == WEIGHTS
        assert watched.bytes == source.manifest.size


def test_it_continues_after_the_host_was_lost(models: Path, tmp_path: Path) -> None:
    source = source_of(models)
    sent = 0
    for lose_at in (2000, 7000, -1):
        with HostTree(FileCache(tmp_path / "host"), source.manifest) as tree:
            watched = Watched(tree)
            watched.lose_at = {lose_at}
            try:
                send(source, watched, "worker-2", nothing)
            except ConnectionError:
                assert lose_at > 0
            sent += watched.bytes
    assert sent == source.manifest.size


def test_chunks_out_of_order_are_ignored(models: Path, tmp_path: Path) -> None:
    source = source_of(models)
    weights = next(file for file in source.manifest.files if file.path == "models/mlp/1/weights")
    with HostTree(FileCache(tmp_path / "host"), source.manifest) as tree:
        assert tree.begin(weights) == 0
        assert tree.receive(weights, 1000, WEIGHTS[1000:2000]) == 0
        assert tree.receive(weights, 0, WEIGHTS[:1000]) == 1000
        assert tree.receive(weights, 0, WEIGHTS[:1000]) == 1000
        send(source, tree, "worker-2", nothing)
        assert (tree.repository / "mlp/1/weights").read_bytes() == WEIGHTS
        assert tree.receive(weights, 10_000, WEIGHTS[10_000:]) == len(WEIGHTS)
        assert tree.begin(weights) == len(WEIGHTS)


@pytest.mark.parametrize("change", ["touched", "longer", "gone"])
def test_a_file_that_changes_while_it_is_sent_is_one_error(models: Path, tmp_path: Path, change: str) -> None:
    source = source_of(models)
    weights = models / "mlp/1/weights"
    if change == "gone":
        weights.unlink()
    else:
        weights.write_bytes(WEIGHTS + b"x" * (change == "longer"))
    with HostTree(FileCache(tmp_path / "host"), source.manifest) as tree, pytest.raises(RepositoryError) as raised:
        send(source, tree, "worker-2", nothing)
    reason = (
        "cannot be read: No such file or directory"
        if change == "gone"
        else "changed while it was sent; start again when nothing writes to the repository"
    )
    assert str(raised.value) == f"{weights}: {reason}"


def test_content_that_differs_from_its_hash_is_sent_once_more_and_then_an_error(models: Path, tmp_path: Path) -> None:
    source = source_of(models)
    weights = models / "mlp/1/weights"
    before = weights.stat()
    weights.write_bytes(b"?" * len(WEIGHTS))
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    with HostTree(FileCache(tmp_path / "host"), source.manifest) as tree:
        watched = Watched(tree)
        with pytest.raises(RepositoryError, match="mlp/1/weights: changed while it was sent"):
            send(source, watched, "worker-2", nothing)
        assert watched.bytes >= 2 * len(WEIGHTS)
        assert not (tree.repository / "mlp/1/weights").exists()


def test_a_host_refuses_files_that_it_did_not_ask_for(models: Path, tmp_path: Path) -> None:
    source = source_of(models)
    strange = FileEntry("models/x", "00" * 32, 3, 0o644)
    weights = next(file for file in source.manifest.files if file.path == "models/mlp/1/weights")
    with HostTree(FileCache(tmp_path / "host"), source.manifest) as tree:
        with pytest.raises(RepositoryError, match="'models/x': no such file"):
            tree.begin(strange)
        with pytest.raises(RepositoryError, match="'models/x': no such file"):
            tree.receive(strange, 0, b"abc")
        with pytest.raises(RepositoryError, match="a chunk came before its file was begun"):
            tree.receive(weights, 1, b"abc")
        tree.begin(weights)
        with pytest.raises(RepositoryError, match="is longer than 10240 bytes"):
            tree.receive(weights, 0, WEIGHTS + b"x")


def test_small_files_take_one_call_each(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SMALL", 1000)
    for number in range(20):
        (models / f"mlp/1/{number}").write_text(str(number))
    source = source_of(models)
    calls: list[str] = []

    class Counting(Watched):
        def begin(self, file: FileEntry) -> int | None:
            calls.append(file.path)
            return super().begin(file)

    with HostTree(FileCache(tmp_path / "host"), source.manifest) as tree:
        send(source, Counting(tree), "worker-2", nothing)
        assert (tree.repository / "mlp/1/19").read_text() == "19"
    assert calls == ["models/mlp/1/weights"]


def test_a_small_file_that_another_run_sends_is_awaited(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SMALL", 1000)
    source = source_of(models)
    cache = FileCache(tmp_path / "host")
    with HostTree(cache, source.manifest) as other, HostTree(cache, source.manifest) as tree:
        config = next(file for file in source.manifest.files if file.path.endswith("config.pbtxt"))
        assert other.begin(config) == 0
        assert tree.receive(config, 0, source.read(config, 0)) == 0
        assert other.receive(config, 0, source.read(config, 0)) == config.size
        send(source, tree, "worker-2", nothing)
        assert (tree.repository / "mlp/config.pbtxt").read_text() == 'backend: "python"'


def test_two_runs_that_need_a_file_send_it_once(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_POLL_S", 0.005)
    source = source_of(models)
    sent = []

    def one_run() -> None:
        with HostTree(FileCache(tmp_path / "host"), source.manifest) as tree:
            watched = Watched(tree)
            send(source, watched, "worker-2", nothing)
            sent.append(watched.bytes)
            assert (tree.repository / "mlp/1/weights").read_bytes() == WEIGHTS

    threads = [threading.Thread(target=one_run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sent) == 4
    assert sum(sent) == source.manifest.size


def test_another_run_that_does_not_go_on_is_an_error(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_POLL_S", 0.001)
    source = source_of(models)
    cache = FileCache(tmp_path / "host")
    with HostTree(cache, source.manifest) as stopped, HostTree(cache, source.manifest) as tree:
        stopped.begin(next(file for file in stopped.missing() if file.size == len(WEIGHTS)))
        with pytest.raises(TuningError, match="host worker-2: another run has been sending models/mlp/1/weights"):
            send(source, tree, "worker-2", nothing, most_wait_s=0.01)
        assert (tree.repository / "mlp/config.pbtxt").exists()  # the others were sent meanwhile


def test_a_long_transfer_says_how_far_it_is(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PROGRESS_S", 0.0)
    source = source_of(models)
    notes: list[str] = []
    with HostTree(FileCache(tmp_path / "host"), source.manifest) as tree:
        send(source, tree, "worker-2", notes.append)
    assert notes[-1] == "sent 10 KiB of 10 KiB to worker-2"


def test_hashes_of_big_files_are_remembered_for_the_next_run(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (models / "mlp/1/weights").write_bytes(b"0" * (1 << 20))
    os.utime(models / "mlp/1/weights", (1000, time.time() - 60))
    first = source_of(models).manifest
    monkeypatch.setattr("tuner.cluster.files.manifest.REMEMBERED_BYTES", 0)
    read = []

    def watched(path: Path) -> str:
        read.append(path.name)
        return "00" * 32

    monkeypatch.setattr("tuner.cluster.files.manifest.sha256_of", watched)
    again = source_of(models).manifest
    assert sorted(read) == ["config.pbtxt", "model.py"]
    assert [file for file in again.files if file.path.endswith("weights")] == [
        file for file in first.files if file.path.endswith("weights")
    ]


def test_memory_is_bounded_by_the_chunk(models: Path) -> None:
    source = source_of(models)
    weights = next(file for file in source.manifest.files if file.size == len(WEIGHTS))
    assert len(source.read(weights, 0)) == 1000
    assert source.read(weights, 10_000) == WEIGHTS[10_000:]
    assert module.CHUNK == 32 << 20
