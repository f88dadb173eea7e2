"""Locks of GPUs and cores, so that two runs of a user never share a slot.

The kernel releases a lock when its last holder has ended, even when killed. Each GPU and each core has a lock file, so
that slots of different sizes exclude each other as well.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from tuner.cluster.slots import Parts, Slot
from tuner.core.errors import JobError

FOLDER_VARIABLE = "TRITONTUNE_LOCKS"
"""The environment variable with the folder that holds the locks of all users."""

# Not below `TMPDIR`, which may differ between runs.
_FOLDER = Path(os.environ.get(FOLDER_VARIABLE) or "/tmp")  # noqa: S108 (the folder in it is private)
_MOST_BYTES = 20
# Choosing slots takes ms.
_CHOOSING_S = 30.0
_LOOK_S = 0.05


class SlotInUseError(JobError):
    """Another process uses a slot."""


class SlotLock:
    """The lock of a slot. It is held as long as this process, or one that inherits its descriptors, keeps it.

    Args:
        descriptors: The descriptors of its lock files.
    """

    def __init__(self, descriptors: tuple[int, ...] = ()) -> None:
        self.descriptors = descriptors

    def copy(self) -> SlotLock:
        """Another holder of the same lock, which is released when all are closed."""
        return SlotLock(tuple(map(os.dup, self.descriptors)))

    def close(self) -> None:
        """Release it here; may be repeated."""
        descriptors, self.descriptors = self.descriptors, ()
        for descriptor in descriptors:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def lock_slot(slot: Slot) -> SlotLock:
    """Lock a slot of this machine. A slot without GPUs and cores is all of this process's cores.

    Raises:
        SlotInUseError: another process uses a part of it.
        JobError: the folder of the locks cannot be used.
    """
    parts = slot.parts or {f"core-{core}" for core in os.sched_getaffinity(0)}
    with ExitStack() as taken:
        descriptors = []
        for part in sorted(parts):
            descriptor, holder = _try(part)
            if descriptor is None:
                raise SlotInUseError(f"{slot.name}: in use by another run (pid {holder or 'unknown'}): {part}")
            taken.callback(os.close, descriptor)
            descriptors.append(descriptor)
        taken.pop_all()
    return SlotLock(tuple(descriptors))


def parts_in_use(parts: Parts) -> Mapping[str, int | None]:
    """The GPUs and cores that other processes use, with their pids, as far as they are known.

    Raises:
        JobError: the folder of the locks cannot be used.
    """
    used: dict[str, int | None] = {}
    for name in (*(device.uuid for device in parts.devices), *(f"core-{core}" for core in parts.cores)):
        descriptor, holder = _try(name)
        if descriptor is None:
            used[name] = holder
        else:
            os.close(descriptor)
    return used


@contextmanager
def choosing() -> Iterator[None]:
    """Within the context, no other run of this user chooses slots.

    Raises:
        JobError: the folder of the locks cannot be used, or another run does not end to choose.
    """
    descriptor = _opened("choosing")
    try:
        until = time.monotonic() + _CHOOSING_S
        while not _locks(descriptor):
            if time.monotonic() > until:
                raise JobError(f"another run (pid {_holder(descriptor) or 'unknown'}) has been choosing slots for 30 s")
            time.sleep(_LOOK_S)
        _write_pid(descriptor)
        yield
    finally:
        os.close(descriptor)


def holders(used: Mapping[str, int | None]) -> str:
    """Who uses the parts of `parts_in_use`, in words: `pid 12`, `pids 12 and 15`."""
    pids = sorted({pid for pid in used.values() if pid is not None})
    if not pids:
        return "unknown pid"
    return f"pid{'s' * (len(pids) > 1)} {' and '.join(map(str, pids))}"


def _try(name: str) -> tuple[int | None, int | None]:
    """The descriptor of a lock that is free, and now held; else None, and the pid of its holder."""
    descriptor = _opened(name)
    if _locks(descriptor):
        _write_pid(descriptor)
        return descriptor, None
    holder = _holder(descriptor)
    os.close(descriptor)
    return None, holder


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _opened(name: str) -> int:
    folder = _folder()
    # Names of MIG instances of early drivers have slashes.
    file = folder / name.replace("/", "-")
    try:
        return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise JobError(f"{file}: cannot lock slots: {error.strerror}") from None


def _folder() -> Path:
    """The folder of this user's locks, which no other user can write to.

    Raises:
        JobError: it cannot be created, or is another user's.
    """
    ours = _FOLDER / f"tritontune-{os.geteuid()}"
    for folder in (ours, ours / "slots"):
        try:
            with suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            found = folder.lstat()
        except OSError as error:
            raise JobError(f"{folder}: cannot lock slots: {error.strerror}") from None
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise JobError(f"{folder}: must be a folder that only you can use (mode 0700); remove it, and run again")
    return ours / "slots"


def _write_pid(descriptor: int) -> None:
    with suppress(OSError):  # the disk may be full; then others hear less
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)


def _holder(descriptor: int) -> int | None:
    text = os.pread(descriptor, _MOST_BYTES, 0).decode(errors="replace")
    return int(text) if text.isdecimal() else None
