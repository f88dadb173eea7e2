"""Ray clusters of several nodes on this machine, with a token, as real processes."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tuner.cluster.ray.executor import RayExecutor
from tuner.cluster.ray.messages import Patience

_MARK = "TRITONTUNE_TEST_NODE"
_START_S = 120


@dataclass
class Node:
    """A node. Its processes and their children know its mark by a variable."""

    name: str
    mark: str
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """The variables of its processes. Its slots have locks of their own, as those of another machine do."""
        site = str(Path(__file__).parent / "ray_site")
        return {
            "TMPDIR": str(self.folder),
            "TRITONTUNE_TEST_LOCKS": str(self.folder),
            "PYTHONPATH": site,
            _MARK: self.mark,
        }

    def processes(self) -> list[psutil.Process]:
        """All processes of the node, with those that its workers started."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(_MARK) == self.mark:
                    found.append(process)
        return found

    def named(self, part: str) -> list[psutil.Process]:
        """The processes whose command line has a text."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if part in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def raylet(self) -> psutil.Process:
        """The process that Ray knows the node by."""
        return next(process for process in self.processes() if process.name() == "raylet")

    def workers(self) -> list[psutil.Process]:
        """The processes of actors of slots that have begun."""
        return self.named("ray::SlotActor")

    def slot_processes(self) -> list[psutil.Process]:
        """The processes of open slots."""
        return self.named("tuner.cluster.slot_worker")

    def servers(self) -> list[psutil.Process]:
        """The running fake Tritons."""
        return self.named("tritonserver")

    def running(self) -> list[psutil.Process]:
        """What of a run runs on the node."""
        return [*self.workers(), *self.slot_processes(), *self.servers()]

    def traces(self) -> set[str]:
        """What of a run is on the node: processes and folders."""
        folders = [path for path in self.folder.iterdir() if path.name.startswith("work-of-")]
        return {f"process {process.pid}" for process in self.running()} | {str(path) for path in folders}

    def kill(self) -> None:
        """End the whole node at once, as by a power failure."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)


@dataclass(frozen=True)
class Network:
    """A network namespace of this machine.

    Attributes:
        name: Its name.
        device: Its end of the link to the other one.
        address: Its address on that link.
    """

    name: str
    device: str
    address: str

    @property
    def within(self) -> tuple[str, ...]:
        """Before a command: in this namespace."""
        return ("ip", "netns", "exec", self.name)

    def cut(self) -> None:
        """Cut the link."""
        _ip("-n", self.name, "link", "set", self.device, "down")


@contextlib.contextmanager
def two_networks() -> Iterator[tuple[Network, Network]]:
    """Two namespaces, joined by a link, and without any other."""
    tag = secrets.token_hex(3)
    ends = tuple(Network(f"tt{tag}{n}", f"v{tag}{n}", f"198.18.77.{n}") for n in (1, 2))
    try:
        for end in ends:
            _ip("netns", "add", end.name)
        _ip("link", "add", ends[0].device, "type", "veth", "peer", "name", ends[1].device)
        for end in ends:
            _ip("link", "set", end.device, "netns", end.name)
            _ip("-n", end.name, "address", "add", f"{end.address}/24", "dev", end.device)
            for device in ("lo", end.device):
                _ip("-n", end.name, "link", "set", device, "up")
        yield ends[0], ends[1]
    finally:
        for end in ends:
            subprocess.run(["ip", "netns", "delete", end.name], check=False, capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


Executors = Callable[..., RayExecutor]
"""Makes executors on a cluster."""

PATIENCE = Patience(settle_s=20.0, silence_s=30.0, pause_s=0.5, longest_pause_s=2.0)
"""Less than in use, as tests lose hosts."""


@dataclass
class RayCluster:
    """A cluster whose head is its first node."""

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="tt", dir="/tmp")))  # sockets: short
    token: str = field(default_factory=lambda: secrets.token_hex(24))
    nodes: list[Node] = field(default_factory=list)
    address: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """What a driver needs to connect."""
        return {
            "RAY_ADDRESS": self.address,
            **self._secret,
        }

    @property
    def _secret(self) -> dict[str, str]:
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, "RAY_USAGE_STATS_ENABLED": "0"}

    def add(
        self,
        name: str,
        *options: str,
        slots: int | None = None,
        core: int | None = None,
        network: Network | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Node:
        """Start a node; the first one is the head.

        Args:
            name: Its name, and that of its host.
            options: Further options of `ray start`.
            slots: How many slots it has, by the custom resource; None: it does not say.
            core: The only core that its processes may use, so that two nodes can have slots; None: all.
            network: The network namespace that it is in; None: that of the test.
            environment: Further variables.
        """
        node = Node(name, secrets.token_hex(8), self.folder / name)
        node.folder.mkdir(exist_ok=True)
        where = [f"--address={self.address}"]
        if not self.address:
            with socket.socket() as free:
                free.bind(("", 0))
                port = free.getsockname()[1]
            own = _own_address() if network is None else network.address
            where = ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={self.folder / 'ray'}"]
        resources = [] if slots is None else [f"--resources={json.dumps({'tritontune': slots})}"]
        self._ray(
            node,
            "start",
            *where,
            f"--node-name={name}",
            "--num-cpus=0",
            "--object-store-memory=80000000",
            "--dashboard-agent-listen-port=0",
            "--disable-usage-stats",
            *resources,
            *options,
            *([] if network is None else [f"--node-ip-address={network.address}"]),
            environment=environment or {},
            core=core,
            within=() if network is None else network.within,
        )
        if not self.address:
            self.address = f"{own}:{port}"
        self.nodes.append(node)
        return node

    def node(self, name: str) -> Node:
        """The node of a name."""
        return next(node for node in self.nodes if node.name == name)

    def stop(self) -> None:
        """End all nodes, and remove their files."""
        for node in reversed(self.nodes):
            node.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _ray(
        self, node: Node, *arguments: str, environment: Mapping[str, str], core: int | None, within: Sequence[str]
    ) -> None:
        log = node.folder / "start.log"
        with log.open("wb") as words:
            done = subprocess.run(
                [*within, Path(sys.executable).parent / "ray", *arguments],
                env={**os.environ, **self._secret, **node.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                timeout=_START_S,
                check=False,
                preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
            )
        if done.returncode:
            raise RuntimeError(f"ray {arguments[0]} failed: {log.read_text()[-2000:]}")


def _own_address() -> str:
    import ray.util  # noqa: PLC0415 (tests that need no Ray import this module, too)

    return str(ray.util.get_node_ip_address())


def eventually(holds: Callable[[], object], *, within_s: float = 30.0) -> None:
    """Wait until something holds."""
    until = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < until, f"not within {within_s:.0f} s: {found}"
        time.sleep(0.1)
