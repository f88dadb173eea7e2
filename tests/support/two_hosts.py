"""Two hosts with a network between them, in namespaces of this machine: `two_hosts.py FOLDER TRITON`.

To be started in a network and a mount namespace of its own (`unshare --net --mount`), which is the first host: the head
of a Ray cluster, where the run is. It sends a repository to both hosts, works on the second one, and cuts the network.
Prints what it saw as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil
from support.ray_cluster import PATIENCE, Node, RayCluster, eventually

from tuner.cluster.ray.executor import RayExecutor
from tuner.cluster.slot_context import SlotRecipe
from tuner.cluster.slots import Slot
from tuner.core.loads import Concurrency
from tuner.options.tune_job import TuneJob
from tuner.testing.executor_contract import MODEL, Heard, work
from tuner.testing.repositories import ModelRepositoryFactory

_FIRST, _SECOND, _PORT = "10.9.0.1", "10.9.0.2", 6379
WEIGHTS = bytes(range(256)) * (1 << 18)
"""A file of two chunks."""


def ip(*words: str) -> None:
    """Change the network."""
    subprocess.run(["ip", *words], check=True)


def connect() -> None:
    """Make the second host, and a link to it."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)  # where namespaces have their names
    ip("link", "set", "lo", "up")
    ip("netns", "add", "second")
    ip("link", "add", "cable", "type", "veth", "peer", "name", "plug")
    ip("link", "set", "plug", "netns", "second")
    ip("addr", "add", f"{_FIRST}/24", "dev", "cable")
    ip("link", "set", "cable", "up")
    ip("-n", "second", "addr", "add", f"{_SECOND}/24", "dev", "plug")
    for name in ("plug", "lo"):
        ip("-n", "second", "link", "set", name, "up")


def start(cluster: RayCluster, node: Node) -> None:
    """Start Ray on a host."""
    node.folder.mkdir()
    is_head = not cluster.nodes
    head = ["--head", f"--port={_PORT}", "--include-dashboard=false", f"--temp-dir={cluster.folder / 'ray'}"]
    command = [
        str(Path(sys.executable).parent / "ray"),
        "start",
        *(head if is_head else [f"--address={_FIRST}:{_PORT}"]),
        f"--node-name={node.name}",
        f"--node-ip-address={_FIRST if is_head else _SECOND}",
        "--num-cpus=0",
        '--resources={"tritontune": 1}',
        "--object-store-memory=80000000",
        "--disable-usage-stats",
    ]
    subprocess.run(
        command if is_head else ["ip", "netns", "exec", "second", *command],
        env={**os.environ, **node.environment, "TRITONTUNE_CACHE": str(node.folder / "cache")},
        stdout=sys.stderr,
        check=True,
        timeout=120,
    )
    cluster.nodes.append(node)


def sent_bytes() -> int:
    """What the first host has sent to the second one."""
    return psutil.net_io_counters(pernic=True)["cable"].bytes_sent


def slot_of(executor: RayExecutor, host: str) -> Slot:
    """The slot of a host."""
    return next(slot for slot in executor.slots if slot.host == host)


def try_it(folder: Path, triton: Path, cluster: RayCluster) -> dict[str, Any]:
    """What happens on both hosts."""
    models = ModelRepositoryFactory(folder / "models")
    models.add("identity", name=MODEL)
    (models.path / MODEL / "1/weights").write_bytes(WEIGHTS)
    for name in ("first", "second"):
        start(cluster, Node(name, name + str(os.getpid()), cluster.folder / name))
    second = cluster.node("second")
    job = TuneJob.make({"repository": models.path, "executor": "ray", "parallel": "auto", "triton_path": triton})
    notes: list[str] = []
    recipe = SlotRecipe(job, (MODEL,), models.path)
    seen: dict[str, Any] = {"notes": notes}
    with RayExecutor(recipe, note=notes.append, patience=PATIENCE) as executor:
        eventually(lambda: len(executor.slots) == 2, within_s=120)
        seen["sent"] = sent_bytes()
        outcome = executor.submit(
            work(Concurrency(1), max_s=2), slot_of(executor, "second"), folder / "1", Heard()
        ).result(60)
        seen["requests"] = [point.requests for point in outcome.points]
        seen["sent while measuring"] = sent_bytes() - seen["sent"]
        cached = [path for path in (second.folder / "cache/files").rglob("*") if path.is_file()]
        seen["cached"] = sorted(path.stat().st_size for path in cached)
        heard = Heard()
        future = executor.submit(work(max_s=120), slot_of(executor, "second"), folder / "2", heard)
        heard.began.wait(60)
        ip("link", "set", "cable", "down")
        cut = time.monotonic()
        seen["error"] = type(_error_of(future)).__name__
        seen["lost after"] = time.monotonic() - cut
        eventually(lambda: [slot.host for slot in executor.slots] == ["first"])
        outcome = executor.submit(work(Concurrency(1)), executor.slots[0], folder / "3", Heard()).result(60)
        seen["requests on the first"] = [point.requests for point in outcome.points]
        eventually(lambda: not second.servers() and not second.slot_processes(), within_s=90)
        seen["ended after"] = time.monotonic() - cut
    return seen


def _error_of(future: Future[Any]) -> BaseException | None:
    return future.exception(60)


if __name__ == "__main__":
    connect()
    hosts = RayCluster()
    hosts.address = f"{_FIRST}:{_PORT}"
    os.environ.update(hosts.environment)
    os.environ["TRITONTUNE_CACHE"] = str(hosts.folder / "user")
    try:
        print(json.dumps(try_it(Path(sys.argv[1]), Path(sys.argv[2]), hosts)))  # noqa: T201
    finally:
        hosts.stop()
