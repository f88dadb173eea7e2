"""The files of a launch, on their way from its host to the machine of the run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tuner.core.atomic_file import write_atomically

LONGEST = 1024 * 1024
"""The longest file that travels whole, in bytes. Of a longer one, as a server's log may be, the middle is left out."""

Files = tuple[tuple[str, bytes], ...]
"""Contents by relative path."""


def files_in(folder: Path) -> Files:
    """The files in a folder, perhaps shortened."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return tuple((path.relative_to(folder).as_posix(), _shortened(path)) for path in found)


def write_files(folder: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write files into a folder, which is created."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, contents in files:
        if ".." not in Path(name).parts and not Path(name).is_absolute():  # a host must not write elsewhere
            write_atomically(folder / name, contents)


def _shortened(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= LONGEST:
            return file.read(LONGEST)
        head = file.read(LONGEST // 4)
        file.seek(size - LONGEST * 3 // 4)
        gap = f"\n[... {size - LONGEST:,} bytes were left out by tritontune ...]\n"
        return head + gap.encode() + file.read(LONGEST * 3 // 4)
