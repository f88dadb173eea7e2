"""The cache of a host: bounded, shared by processes, and right whatever is killed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import cache_user
from support.cache_user import content, fill, manifest, number_of

from tuner.cluster.files import cache as module
from tuner.cluster.files.cache import FOLDER_VARIABLE, SIZE_VARIABLE, FileCache, Partial, cache_folder
from tuner.cluster.files.manifest import Manifest, sha256_of
from tuner.cluster.files.transfer import HostTree
from tuner.core.errors import JobError, TuningError
from tuner.core.mark import Mark


def cached(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in (folder / "files").rglob("*") if path.is_file()}


def all_right(folder: Path) -> bool:
    return all(sha256_of(path) == name.rstrip("x") for name, path in cached(folder).items())


def user(folder: Path, limit: int, seed: int, rounds: int, wait_s: float = 0.0) -> subprocess.Popen[str]:
    command = [sys.executable, cache_user.__file__, str(folder), str(limit), str(seed), str(rounds), str(wait_s)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_files_are_sent_once_and_then_linked(tmp_path: Path) -> None:
    cache = FileCache(tmp_path)
    with HostTree(cache, manifest([1, 2])) as tree:
        assert fill(tree) == 2
    with HostTree(cache, manifest([2, 3])) as tree:
        assert fill(tree) == 1
        file = tree.repository / "2"
        assert file.read_bytes() == content(2)
        assert file.stat().st_mode & 0o777 == 0o444
    assert not list((tmp_path / "trees").iterdir())
    assert len(cached(tmp_path)) == 3


def test_the_same_content_is_sent_once_and_has_all_its_names(tmp_path: Path) -> None:
    (file,) = manifest([1]).files
    twice = Manifest("r", ("r", "r/1"), (replace(file, path="r/1/a"), replace(file, path="r/1/b")))
    with HostTree(FileCache(tmp_path), twice) as tree:
        assert fill(tree) == 1
        assert (tree.repository / "1/a").read_bytes() == (tree.repository / "1/b").read_bytes() == content(1)


def test_an_executable_file_stays_one(tmp_path: Path) -> None:
    (file,) = manifest([1]).files
    both = Manifest("r", ("r", "r/1"), (replace(file, path="r/1/a"), replace(file, path="r/1/b", mode=0o755)))
    with HostTree(FileCache(tmp_path), both) as tree:
        fill(tree)
        assert (tree.repository / "1/a").stat().st_mode & 0o777 == 0o444
        assert (tree.repository / "1/b").stat().st_mode & 0o777 == 0o555


def test_the_least_recently_used_files_go_first(tmp_path: Path) -> None:
    now = [1e9]
    cache = FileCache(tmp_path, limit=4000, now=lambda: now[0])
    for number in (1, 2, 0, 1):  # 1000, 1500, 500 bytes
        now[0] += 10
        with HostTree(cache, manifest([number])) as tree:
            fill(tree)
    now[0] += 10
    with HostTree(cache, manifest([3])) as tree:  # 2000 bytes: 1500 of them must go
        fill(tree)
    kept = {manifest([number]).files[0].key for number in (0, 1, 3)}
    assert set(cached(tmp_path)) == kept
    assert cache.size == 3500


def test_files_in_use_stay_and_the_error_names_host_and_size(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, limit=3000, host="worker-2")
    with HostTree(cache, manifest([3])) as used:
        fill(used)
        with HostTree(cache, manifest([2])) as tree, pytest.raises(TuningError) as raised:
            fill(tree)
        assert (used.repository / "3").read_bytes() == content(3)
    assert str(raised.value) == (
        f"host worker-2: {tmp_path}: the files of running jobs are 500 B larger than the cache may be (2.93 KiB); "
        "set TRITONTUNE_CACHE_SIZE there"
    )
    assert not list((tmp_path / "partial").iterdir())


@pytest.mark.parametrize("damage", ["written", "shorter", "silent"])
def test_a_damaged_file_is_found_and_sent_again(tmp_path: Path, damage: str) -> None:
    now = [1e9]
    with HostTree(FileCache(tmp_path, now=lambda: now[0]), manifest([1])) as tree:
        fill(tree)
    (file,) = cached(tmp_path).values()
    before = file.stat()
    file.chmod(0o644)
    file.write_bytes(content(1)[:-1] + (b"" if damage == "shorter" else b"?"))
    if damage == "silent":  # as a disk does it
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        now[0] += module.VERIFIED_FOR_S + 1
    with HostTree(FileCache(tmp_path, now=lambda: now[0]), manifest([1])) as tree:
        assert fill(tree) == 1
        assert (tree.repository / "1").read_bytes() == content(1)


def test_a_big_file_is_verified_once_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.cluster.files.manifest.REMEMBERED_BYTES", 1)
    read: list[Path] = []

    def watched(path: Path) -> str:
        read.append(path)
        return sha256_of(path)

    monkeypatch.setattr("tuner.cluster.files.manifest.sha256_of", watched)
    now = [1e9]
    for seconds in (0, 10, module.VERIFIED_FOR_S, 10):
        now[0] += seconds
        with HostTree(FileCache(tmp_path, now=lambda: now[0]), manifest([1])) as tree:
            fill(tree)
    assert len(read) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("cannot mount a file system here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


class TestFullDisk:
    """A full disk is one clear error, which leaves nothing behind."""

    def test_what_is_missing_is_known_before_anything_is_sent(self, small_disk: Path) -> None:
        cache = FileCache(small_disk / "cache", limit=1 << 30, host="worker-2")
        with HostTree(cache, manifest([1000])) as tree, pytest.raises(TuningError) as raised:  # 500,500 bytes
            fill(tree)
        assert str(raised.value).startswith(f"host worker-2: {small_disk}/cache: the disk is full; 2")
        assert "KiB more are needed: free some space there, or set TRITONTUNE_CACHE to" in str(raised.value)
        assert not list((small_disk / "cache/partial").iterdir())

    def test_unused_files_make_room(self, small_disk: Path) -> None:
        cache = FileCache(small_disk / "cache", limit=1 << 30)
        for number in (300, 301):  # 150,500 bytes each
            with HostTree(cache, manifest([number])) as tree:
                assert fill(tree) == 1
        assert list(cached(small_disk / "cache")) == [manifest([301]).files[0].key]

    def test_a_disk_that_others_fill_meanwhile(self, small_disk: Path) -> None:
        cache = FileCache(small_disk / "cache", limit=1 << 30, host="worker-2")
        with HostTree(cache, manifest([300])) as tree:
            (file,) = tree.missing()
            offset = tree.begin(file) or 0
            offset = tree.receive(file, offset, content(300)[:1000])
            with pytest.raises(OSError, match="No space left"):
                (small_disk / "other").write_bytes(b"0" * 300_000)
            with pytest.raises(TuningError, match="host worker-2: .*: the disk is full: free some space"):
                tree.receive(file, offset, content(300)[offset:])
            assert not list((small_disk / "cache/partial").iterdir())
            (small_disk / "other").unlink()
            assert fill(tree) == 1  # and it may be tried again


def test_an_error_of_the_disk_names_the_host_and_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Partial, __: bytes) -> None:
        raise OSError(errno.EIO, "Input/output error", "somewhere")

    monkeypatch.setattr(Partial, "append", fail)
    with HostTree(FileCache(tmp_path, host="worker-2"), manifest([1])) as tree, pytest.raises(TuningError) as raised:
        fill(tree)
    assert str(raised.value) == (
        "host worker-2: somewhere: cannot be used: Input/output error; TRITONTUNE_CACHE names another folder for the "
        "cache"
    )


def test_file_systems_without_hard_links_get_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with HostTree(FileCache(tmp_path), manifest([1])) as tree:
        assert fill(tree) == 1
        (tree.repository / "1").chmod(0o644)
        (tree.repository / "1").write_bytes(b"")
    with HostTree(FileCache(tmp_path), manifest([1])) as tree:
        assert fill(tree) == 0
        assert (tree.repository / "1").read_bytes() == content(1)


def test_trees_of_processes_that_have_ended_are_removed(tmp_path: Path) -> None:
    cache = FileCache(tmp_path)
    own = Mark.new()
    ended = Mark(own.host, own.boot, own.namespace, own.pid, own.started + 1, 1)
    elsewhere = Mark("0" * 8, "1" * 8, own.namespace, own.pid, 5, 1)
    for mark in (ended, elsewhere):
        (tmp_path / "trees" / str(mark) / "r").mkdir(parents=True)
    with HostTree(cache, manifest([])) as tree:
        assert {path.name for path in (tmp_path / "trees").iterdir()} == {
            str(elsewhere),
            tree.repository.parent.name,
        }


def test_a_partial_file_of_another_repository_is_removed_and_a_wanted_one_continued(tmp_path: Path) -> None:
    cache = FileCache(tmp_path)
    with HostTree(cache, manifest([5, 6])) as tree:
        for file in tree.missing():
            assert tree.begin(file) == 0
            assert tree.receive(file, 0, content(number_of(file))[:1000]) == 1000
        with HostTree(cache, manifest([])):
            assert len(list((tmp_path / "partial").iterdir())) == 2  # they are being received
    with HostTree(cache, manifest([6])) as tree:
        (file,) = tree.missing()
        assert [path.name for path in (tmp_path / "partial").iterdir()] == [f"{file.key}-{file.size}"]
        assert tree.begin(file) == 1000


class TestFolder:
    """Where the cache lies, and how large it may be."""

    @pytest.fixture(autouse=True)
    def _environment(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name in (FOLDER_VARIABLE, SIZE_VARIABLE, "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def test_the_environment_names_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert cache_folder() == tmp_path / "home/.cache/tritontune"
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")
        assert cache_folder() == tmp_path / "home/.cache/tritontune"
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert cache_folder() == tmp_path / "xdg/tritontune"
        monkeypatch.setenv(FOLDER_VARIABLE, "~/here")
        assert cache_folder() == tmp_path / "home/here"

    def test_only_its_user_reads_it(self, tmp_path: Path) -> None:
        FileCache.of_this_user()
        assert (tmp_path / "home/.cache/tritontune").stat().st_mode & 0o777 == 0o700

    def test_its_size_is_limited_by_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(SIZE_VARIABLE, "1KB")
        with HostTree(FileCache.of_this_user(), manifest([5])) as tree, pytest.raises(TuningError, match="1.95 KiB"):
            fill(tree)

    def test_a_wrong_size_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(SIZE_VARIABLE, "much")
        with pytest.raises(JobError, match="host worker-2: TRITONTUNE_CACHE_SIZE: 'much' is not a size"):
            FileCache.of_this_user("worker-2")

    def test_a_folder_that_cannot_be_created(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "file"))
        with pytest.raises(TuningError, match="cannot be used: .*; TRITONTUNE_CACHE names another folder"):
            FileCache.of_this_user()


steps = st.lists(
    st.tuples(st.sampled_from(["open", "close", "part", "damage", "kill"]), st.integers(0, 9), st.integers(0, 2)),
    max_size=25,
)


@pytest.mark.slow
@given(steps)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_trees_are_right_and_the_cache_is_bounded_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, sequence: list[tuple[str, int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    limit = 12_000
    cache = FileCache(folder, limit=limit)
    trees: list[tuple[HostTree, list[int]]] = []
    for kind, number, which in sequence:
        files = cached(folder)
        if kind == "open" and len(trees) < 3:
            tree = HostTree(cache, manifest([number, (number + 1) % 10]))
            try:
                fill(tree)
                trees.append((tree, [number, (number + 1) % 10]))
            except TuningError:  # all is in use
                tree.close()
        elif kind == "close" and trees:
            trees.pop(which % len(trees))[0].close()
        elif kind in {"part", "kill"}:  # a transfer that ends in the middle
            tree = HostTree(cache, manifest([number]))
            for file in tree.missing():
                try:
                    if tree.begin(file) is not None and kind == "part":
                        tree.receive(file, 0, content(number)[:300])
                except TuningError:
                    pass
            tree.close()
        elif kind == "damage" and files and not trees:
            victim = sorted(files.values())[number % len(files)]
            victim.chmod(0o644)
            victim.write_bytes(b"damaged")
        assert cache.size <= limit
        for tree, numbers in trees:
            assert all((tree.repository / str(one)).read_bytes() == content(one) for one in numbers)
    for tree, _ in trees:
        tree.close()


@pytest.mark.slow
def test_processes_share_it_while_some_are_killed(tmp_path: Path) -> None:
    limit = 20_000  # too little for all files, which have 27,500 bytes
    patient = [user(tmp_path, limit, seed, 40) for seed in range(3)]
    for seed in range(3):
        victim = user(tmp_path, limit, 100 + seed, 10_000, 0.001)
        assert victim.stdout is not None
        for _ in range(seed + 1):
            victim.stdout.readline()
        time.sleep(0.003 * seed)
        victim.send_signal(signal.SIGKILL)
        victim.communicate()
    for process in patient:
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert len(out.splitlines()) == 40
    cache = FileCache(tmp_path, limit=limit)
    with HostTree(cache, manifest([7, 8, 9])) as tree:
        fill(tree)  # what was killed holds no room
        assert list((tmp_path / "trees").iterdir()) == [tree.repository.parent]
    assert not list((tmp_path / "partial").iterdir())
    assert all_right(tmp_path)
    assert cache.size <= limit


@pytest.mark.slow
def test_a_file_that_two_processes_need_is_sent_once(tmp_path: Path) -> None:
    users = [user(tmp_path, 10**6, 7, 1, 0.05) for _ in range(3)]  # the same seed: the same files
    sent = [int(one.communicate(timeout=60)[0]) for one in users]
    assert sum(sent) == 3
