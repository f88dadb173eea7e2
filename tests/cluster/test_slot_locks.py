"""Two runs never share a slot."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tuner.cluster import slot_locks
from tuner.cluster.local import chosen_slots
from tuner.cluster.slot_locks import SlotInUseError, choosing, holders, lock_slot, parts_in_use
from tuner.cluster.slots import Device, Parts, Slot
from tuner.core.errors import JobError
from tuner.options.tune_job import TuneJob

_PARTS = Parts((Device("0", "GPU-a"), Device("1", "GPU-b")), tuple(range(8)))
_HOLDER = """
import sys, time
from pathlib import Path
from tuner.cluster import slot_locks
from tuner.cluster.slots import Slot
slot_locks._FOLDER = Path(sys.argv[1])
held = slot_locks.lock_slot(Slot("s", "h", tuple(sys.argv[2].split()), frozenset(map(int, sys.argv[3].split()))))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(slot_locks, "_FOLDER", tmp_path)
    return tmp_path / f"tritontune-{os.geteuid()}"


@contextmanager
def _held_elsewhere(folder: Path, gpus: str, cores: str) -> Iterator[int]:
    """Hold the lock of a slot in another process; yields its pid."""
    command = [sys.executable, "-c", _HOLDER, str(folder.parent), gpus, cores]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            yield holder.pid
        finally:
            holder.kill()


def test_a_slot_in_use_is_told_with_its_holder_and_is_free_when_that_is_killed(folder: Path) -> None:
    mine = Slot("h/gpu:0", "h", ("GPU-a",), frozenset({3, 4}))
    with _held_elsewhere(folder, "GPU-x", "4 5") as pid:
        with pytest.raises(SlotInUseError) as raised:
            lock_slot(mine)
        assert str(raised.value) == f"h/gpu:0: in use by another run (pid {pid}): core-4"
        assert parts_in_use(_PARTS) == {"core-4": pid, "core-5": pid}
        lock_slot(Slot("other", "h", ("GPU-a",), frozenset({3}))).close()
    with lock_slot(mine) as lock:
        assert len(lock.descriptors) == 3
        assert set(parts_in_use(_PARTS)) == {"GPU-a", "core-3", "core-4"}
    assert not parts_in_use(_PARTS)


def test_a_refused_lock_leaves_nothing_locked(folder: Path) -> None:
    with _held_elsewhere(folder, "", "7"), pytest.raises(SlotInUseError):
        lock_slot(Slot("s", "h", (), frozenset({5, 6, 7, 8})))
    assert not parts_in_use(_PARTS)


def test_a_copy_of_a_lock_holds_it() -> None:
    slot = Slot("s", "h", ("MIG-GPU-1/2/3",))
    lock = lock_slot(slot)
    copy = lock.copy()
    lock.close()
    with pytest.raises(SlotInUseError):
        lock_slot(slot)
    copy.close()
    copy.close()
    lock_slot(slot).close()


def test_a_slot_of_the_whole_machine_has_all_cores() -> None:
    with lock_slot(Slot("h/all", "h")) as lock:
        assert len(lock.descriptors) == len(os.sched_getaffinity(0))
        with pytest.raises(SlotInUseError, match=f"pid {os.getpid()}"):
            lock_slot(Slot("s", "h", (), frozenset({min(os.sched_getaffinity(0))})))


def test_the_locks_are_for_this_user_alone(folder: Path) -> None:
    lock_slot(Slot("s", "h", ("GPU-a",))).close()
    assert folder.stat().st_mode & 0o777 == (folder / "slots").stat().st_mode & 0o777 == 0o700
    assert (folder / "slots" / "GPU-a").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("wrong", ["open to others", "a link", "a file"])
def test_a_folder_that_others_may_have_made_is_refused(folder: Path, tmp_path: Path, wrong: str) -> None:
    if wrong == "open to others":
        folder.mkdir()
        folder.chmod(0o755)
    elif wrong == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.touch(mode=0o600)
    with pytest.raises(JobError, match=f"{folder}: must be a folder that only you can use"):
        lock_slot(Slot("s", "h", ("GPU-a",)))


def test_a_link_instead_of_a_lock_is_not_followed(folder: Path, tmp_path: Path) -> None:
    lock_slot(Slot("s", "h", ("GPU-a",))).close()
    (folder / "slots" / "GPU-b").symlink_to(tmp_path / "precious")
    with pytest.raises(JobError, match="GPU-b: cannot lock slots"):
        lock_slot(Slot("s", "h", ("GPU-b",)))
    assert not (tmp_path / "precious").exists()


def test_one_run_chooses_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot_locks, "_CHOOSING_S", 0.1)
    with choosing(), pytest.raises(JobError, match=rf"another run \(pid {os.getpid()}\) has been choosing"), choosing():
        raise AssertionError
    with choosing():
        pass


def test_holders_in_words() -> None:
    assert holders({"GPU-a": 12, "core-1": 12}) == "pid 12"
    assert holders({"GPU-a": 15, "core-1": 12, "core-2": None}) == "pids 12 and 15"
    assert holders({"GPU-a": None}) == "unknown pid"


class TestChoice:
    @pytest.fixture(autouse=True)
    def machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Parts, "here", lambda _job: Parts((), tuple(range(8))))

    @staticmethod
    def _chosen(**options: object) -> tuple[list[str], list[str]]:
        """The names of the chosen slots, and the notes."""
        notes: list[str] = []
        slots, locks = chosen_slots(TuneJob.make({"repository": "models", **options}), notes.append)
        for lock in locks:
            lock.close()
        return [slot.name.partition("/")[2] for slot in slots], notes

    def test_a_slot_in_use_is_left_out_with_a_note(self, folder: Path) -> None:
        assert self._chosen(parallel=2) == (["cores:0-2", "cores:4-6"], [])
        with _held_elsewhere(folder, "", "0 1 2 3") as pid:
            assert self._chosen(parallel=2) == (
                ["cores:4-6"],
                [f"1 of 2 slots are left out, as other runs use them (pid {pid})"],
            )

    def test_without_a_free_slot_one_line_says_so(self, folder: Path) -> None:
        with _held_elsewhere(folder, "", "1 3 5 7") as pid:
            with pytest.raises(JobError) as raised:
                self._chosen(parallel="auto", cores_per_slot=4)
            assert str(raised.value) == f"no slot is free: other runs use the GPUs or cores of this machine (pid {pid})"
        assert self._chosen(parallel="auto", cores_per_slot=4)[0] == ["cores:0-3"]
