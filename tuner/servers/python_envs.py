"""Removes the folders that Triton's Python backend leaves in `/tmp`.

Each server creates `/tmp/python_env_XXXXXX` for execution environments, regardless of TMPDIR. A killed server leaves it
behind. The name does not show the owner. So a folder is removed if it is empty, belongs to this user, and is older than
every live process that could have created it. It stays if processes that are not visible here, on another host or in
another container, may have created it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from tuner.core.proc import pid_namespace

_PLACE, _PATTERN = Path("/tmp"), "python_env_??????"  # noqa: S108 (where the backend creates them)
_BACKEND = "libtriton_python.so"
_SERVER = "tritonserver"
# Tolerance: start times of processes depend on the machine's boot time, known to 1 s; file times have ticks of ms.
_SLACK_S = 1.5
_MOUNTS = Path("/proc/self/mountinfo")
# File systems that a single host uses; others may be shared by several hosts.
_LOCAL = frozenset({"btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs", "zfs"})
# From linux/proc_ns.h: the number of the host's own namespace, in which all its processes are visible.
_FIRST_NAMESPACE = 0xEFFFFFFC


def remove_python_envs() -> int:
    """Remove the folders that no live Triton can have created. Returns their number."""
    made = dict(_empty_ones())
    if not made or _is_shared(_PLACE):
        return 0
    oldest = min((started for started in _backends(max(made.values()) + _SLACK_S)), default=float("inf"))
    count = 0
    for folder, made_at in made.items():
        if made_at + _SLACK_S < oldest:
            with suppress(OSError):  # already removed, or in use
                folder.rmdir()
                count += 1
    return count


def _is_shared(folder: Path) -> bool:
    """Whether processes that are not visible here may use the folder."""
    # Mount point and file system type; see proc(5). If several are mounted at one place, the last one counts.
    mounts = [line.split(" - ") for line in _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()]
    where = {Path(mount.split()[4]): kind.split()[0] for mount, kind in mounts}
    resolved = folder.resolve()
    mount = next(path for path in (resolved, *resolved.parents) if path in where or path == path.parent)
    if where.get(mount) not in _LOCAL:
        return True
    # A container sees only its own processes, and a mounted folder may also be mounted in other containers.
    return pid_namespace() != _FIRST_NAMESPACE and mount != mount.parent and where[mount] != "tmpfs"


def _empty_ones() -> Iterator[tuple[Path, float]]:
    """The empty folders of this user, with their creation times."""
    for folder in _PLACE.glob(_PATTERN):
        with suppress(OSError):
            status = folder.lstat()
            if status.st_uid == os.geteuid() and folder.is_dir() and not any(folder.iterdir()):
                yield folder, status.st_ctime


def _backends(before: float) -> Iterator[float]:
    """Start times of this user's live processes that have loaded the Python backend, or may soon."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            started = process.create_time()
            if started <= before and process.uids().effective == os.geteuid() and _has_backend(process):
                yield started


def _has_backend(process: psutil.Process) -> bool:
    if process.name() == _SERVER:
        return True
    return _BACKEND in Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8", errors="replace")
