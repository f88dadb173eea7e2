"""A process that fills trees from a cache, over and over: `cache_user.py CACHE LIMIT SEED ROUNDS [SECONDS_PER_CHUNK]`.

All processes know the same files, by number. Each round takes some, sends what the cache lacks in chunks, and checks
the tree. Prints a line for each round: how many files were sent.
"""

from __future__ import annotations

import hashlib
import random
import sys
import time
from pathlib import Path

from tuner.cluster.files.cache import FileCache
from tuner.cluster.files.manifest import FileEntry, Manifest
from tuner.cluster.files.transfer import HostTree
from tuner.core.errors import TuningError

CHUNK = 1000


def content(number: int) -> bytes:
    """The content of a file."""
    return hashlib.shake_128(str(number).encode()).digest(500 * (number + 1))


def manifest(numbers: list[int]) -> Manifest:
    """A repository of some files."""
    files = []
    for number in numbers:
        data = content(number)
        files.append(FileEntry(f"r/{number}", hashlib.sha256(data).hexdigest(), len(data), 0o644))
    return Manifest("r", ("r",), tuple(files))


def number_of(file: FileEntry) -> int:
    """The number of a file, which is the first part of its path in the repository."""
    return int(file.path.split("/")[1])


def fill(tree: HostTree, wait_s: float = 0.0) -> int:
    """Send what a tree lacks. Returns the number of files that were sent."""
    sent = 0
    waiting = list(tree.missing())
    while waiting:
        file = waiting.pop(0)
        offset = tree.begin(file)
        if offset is None:
            waiting.append(file)
            time.sleep(0.001)
            continue
        sent += offset < file.size
        while offset < file.size:
            time.sleep(wait_s)
            offset = tree.receive(file, offset, content(number_of(file))[offset : offset + CHUNK])
    return sent


def use(cache: FileCache, seed: int, rounds: int, wait_s: float) -> None:
    """Fill trees, and check them."""
    rng = random.Random(seed)  # noqa: S311 (no secret)
    for _ in range(rounds):
        numbers = rng.sample(range(10), 3)
        with HostTree(cache, manifest(numbers)) as tree:
            try:
                sent = fill(tree, wait_s)
            except TuningError as error:  # the others use what would have to go
                if "larger than the cache may be" not in str(error):
                    raise
                print("full", flush=True)  # noqa: T201
                continue
            for number in numbers:
                assert (tree.repository / str(number)).read_bytes() == content(number)
            print(sent, flush=True)  # noqa: T201


if __name__ == "__main__":
    folder, most, first, times, *wait = sys.argv[1:]
    use(FileCache(Path(folder), limit=int(most)), int(first), int(times), float(wait[0]) if wait else 0.0)
